#include "io/gguf_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

struct Said {
  std::string kind, refusal;
};

Said of(const Metadata& metadata) {
  const test::TempDir dir;
  GgufWriter(dir / "it.gguf", metadata, {}).finish();
  const GgufFile file(dir / "it.gguf");
  try {
    require_gguf_model(file);
  } catch (const FormatError& error) {
    return {gguf_kind(file), error.what()};
  }
  return {gguf_kind(file), ""};
}

TEST(GgufKind, AModelNeedNotSaySo) {
  for (const Metadata& metadata :
       {Metadata{{"general.architecture", std::string("llama")}},
        Metadata{{"general.type", std::string("model")},
                 {"imatrix.chunk_count", uint64_t{1}}}}) {  // llama-quantize's note in a model
    const Said said = of(metadata);
    EXPECT_EQ(said.kind, "GGUF model");
    EXPECT_EQ(said.refusal, "");
  }
}

TEST(GgufKind, OthersAreRefusedWithWhatTheyAreAndWhatToGive) {
  const Said adapter = of({{"general.type", std::string("adapter")}});
  EXPECT_EQ(adapter.kind, "GGUF adapter");
  EXPECT_THAT(adapter.refusal, AllOf(HasSubstr("it.gguf is no model but an adapter"),
                                     HasSubstr("--adapter or lora.from_adapter")));
  EXPECT_THAT(of({{"adapter.type", std::string("lora")}}).refusal, HasSubstr("an adapter"));
  const Said matrix = of({{"general.type", std::string("imatrix")}});
  EXPECT_EQ(matrix.kind, "GGUF importance matrix");
  EXPECT_THAT(matrix.refusal, HasSubstr("llama-quantize takes with --imatrix"));
  EXPECT_THAT(of({{"general.type", std::string("mmproj")}}).refusal, HasSubstr("encoder"));
  const Said other = of({{"general.type", std::string("of-tomorrow")}});
  EXPECT_EQ(other.kind, "GGUF file of type 'of-tomorrow'");
  EXPECT_THAT(other.refusal, HasSubstr("general.type is 'of-tomorrow'"));
}

}  // namespace
}  // namespace qlora::io
