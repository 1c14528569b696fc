// Numbers that GGUF files give for each layer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/families/config_reader.h"

namespace qlora::model {
namespace {

using testing::HasSubstr;

const ConfigKey kHeads{{}, "attention.head_count_kv", true};

int64_t read(const io::GgufValue& value) {
  const io::GgufFile file(
      "m.gguf",
      {{"general.architecture", std::string("llama")}, {"llama.attention.head_count_kv", value}},
      {});
  return ConfigReader(file).integer(kHeads, 0, 1, 64);
}

TEST(GgufConfig, ANumberForEachLayerIsOneIfTheyAreTheSame) {
  EXPECT_EQ(read(uint64_t{8}), 8);
  EXPECT_EQ(read(std::vector<uint64_t>{8, 8, 8}), 8);
  EXPECT_EQ(read(std::vector<int64_t>{4}), 4);
  for (const std::vector<int64_t>& values :
       {std::vector<int64_t>{8, 8, 4}, {0, 0}, {65, 65}, {}, {-1, -1}})
    EXPECT_THAT([&] { read(values); },
                testing::ThrowsMessage<FormatError>(
                    HasSubstr("m.gguf: the metadata value llama.attention.head_count_kv must be an "
                              "integer from 1 to 64, the same for every layer")));
  EXPECT_THROW(read(std::string("8")), FormatError);
}

}  // namespace
}  // namespace qlora::model
