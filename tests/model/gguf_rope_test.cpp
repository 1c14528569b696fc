// How a GGUF file scales RoPE, by llama.cpp's rules: without rope.scaling.type a factor is linear,
// rope.scale_linear is its older name, none never scales, and attn_factor is of cos and sin in any
// case.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/error.h"
#include "io/gguf.h"
#include "model/families/family.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::model {
namespace {

using Keys = std::map<std::string, io::GgufValue>;

// Of the tiny Llama with these keys behind "llama.".
RopeConfig read(const Keys& keys) {
  const test::TempDir dir;
  test::write_tiny_gguf(dir / "tiny.gguf");
  const io::GgufFile tiny(dir / "tiny.gguf");
  std::map<std::string, io::GgufValue> metadata = tiny.metadata();
  for (const auto& [key, value] : keys) metadata["llama." + key] = value;
  io::GgufWriter writer(dir / "more.gguf", {metadata.begin(), metadata.end()}, tiny.tensors());
  for (const io::TensorView& tensor : tiny.tensors()) writer.write(tensor.name, tensor.bytes);
  writer.finish();
  return read_architecture(io::GgufFile(dir / "more.gguf")).rotaries.front().rope;
}

TEST(GgufRope, AFactorWithoutATypeIsLinear) {
  for (const char* key : {"rope.scaling.factor", "rope.scale_linear"}) {
    const RopeConfig rope = read({{key, 4.0f}});
    EXPECT_EQ(rope.type, "linear") << key;
    EXPECT_EQ(rope.factor, 4) << key;
  }
  const RopeConfig both = read({{"rope.scaling.factor", 4.0f}, {"rope.scale_linear", 2.0f}});
  EXPECT_EQ(both.factor, 4);
  EXPECT_EQ(read({}).type, "default");
  EXPECT_EQ(read({{"rope.scaling.factor", 1.0f}}).type, "default");
}

TEST(GgufRope, ATypeDecides) {
  const RopeConfig linear =
      read({{"rope.scaling.type", std::string("linear")}, {"rope.scaling.factor", 2.0f}});
  EXPECT_EQ(linear.type, "linear");
  EXPECT_EQ(linear.factor, 2);
  EXPECT_EQ(read({{"rope.scaling.type", std::string("linear")}}).factor, 1);
  for (const char* key : {"rope.scaling.factor", "rope.scale_linear"})
    EXPECT_EQ(read({{"rope.scaling.type", std::string("none")}, {key, 4.0f}}).type, "default")
        << key;
  EXPECT_THROW(read({{"rope.scaling.type", std::string("of-tomorrow")}}), FormatError);
}

TEST(GgufRope, AttnFactorIsOfCosAndSin) {
  const RopeConfig plain = read({{"rope.scaling.attn_factor", 0.5f}});
  EXPECT_EQ(plain.attention_factor, 0.5);
  const RopeConfig linear = read({{"rope.scaling.type", std::string("linear")},
                                  {"rope.scaling.factor", 2.0f},
                                  {"rope.scaling.attn_factor", 0.5f}});
  EXPECT_EQ(linear.attention_factor, 0.5);
  const Keys yarn = {{"rope.scaling.type", std::string("yarn")},
                     {"rope.scaling.factor", 4.0f},
                     {"rope.scaling.original_context_length", uint64_t{16}}};
  Keys scaled = yarn;
  scaled["rope.scaling.attn_factor"] = 0.5f;
  EXPECT_DOUBLE_EQ(read(scaled).attention_factor, 0.5 * read(yarn).attention_factor);
}

}  // namespace
}  // namespace qlora::model
