// gpt-oss from a GGUF file as llama.cpp's converter writes it, against the directory that it was
// made of.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/load.h"
#include "model/same_computation.h"
#include "tests/support/decoded_rows.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::model {
namespace {

using testing::IsEmpty;

class GgufMxfp4 : public ::testing::Test {
 protected:
  GgufMxfp4() {
    test::write_mxfp4_directory(dir_ / "experts");
    test::write_mxfp4_gguf(dir_ / "experts", dir_ / "experts.gguf");
    directory_ = open_weights(dir_ / "experts");
    gguf_ = open_weights(dir_ / "experts.gguf");
  }
  static std::unique_ptr<CausalLm> loaded(WeightSource& source, const std::string& method) {
    ModelOptions options;
    options.dtype = "float32";
    quant::QuantizationOptions quantization;
    quantization.method = method;
    return load_model(source, options, quantization, at::kCPU, at::kFloat);
  }

  const test::TempDir dir_;
  std::unique_ptr<WeightSource> directory_, gguf_;
};

TEST_F(GgufMxfp4, TheFileDescribesTheModelOfItsDirectory) {
  EXPECT_EQ(first_difference(directory_->architecture(), gguf_->architecture()), "");
}

TEST_F(GgufMxfp4, EveryTensorHoldsTheNumbersOfTheDirectory) {
  const auto wanted = loaded(*directory_, "none")->frozen_state();
  const auto found = loaded(*gguf_, "none")->frozen_state();
  EXPECT_THAT(gguf_->unread(), IsEmpty());
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].first, wanted[i].first);
    EXPECT_TRUE(at::equal(found[i].second, wanted[i].second)) << wanted[i].first;
  }
}

TEST_F(GgufMxfp4, ExpertsStayInTheirBlocksWithTheGatesRowsBeforeThoseOfUp) {
  const auto wanted = loaded(*directory_, "as_stored"), found = loaded(*gguf_, "as_stored");
  const auto groups = found->groups(), wanted_groups = wanted->groups();
  ASSERT_EQ(groups.size(), wanted_groups.size());
  int64_t packed = 0;
  for (size_t g = 0; g < groups.size(); ++g)
    for (size_t i = 0; i < groups[g]->layers().size(); ++i) {
      const lora::LoraLinear& linear = groups[g]->layers()[i];
      const bool is_expert = linear.name.find("experts.") != std::string::npos;
      EXPECT_EQ(linear.base->format(), is_expert ? "MXFP4" : "float32") << linear.name;
      EXPECT_TRUE(at::equal(test::decoded_rows(*linear.base),
                            test::decoded_rows(*wanted_groups[g]->layers()[i].base)))
          << linear.name;
      packed += is_expert ? 1 : 0;
    }
  EXPECT_EQ(packed, 2 * 4 * 2);
}

// A block and its scale take 17 bytes.
TEST_F(GgufMxfp4, TheSizeOfAnExpertIsToldInAdvance) {
  quant::QuantizationOptions as_stored;
  as_stored.method = "as_stored";
  const std::string module = "model.layers.1.mlp.experts.3.gate_up_proj";
  const auto size = gguf_->packed_size(module, 64, 64, as_stored);
  ASSERT_TRUE(size.has_value());
  EXPECT_EQ(size->format, "MXFP4");
  EXPECT_EQ(size->bytes, 64 * 64 / 32 * 17);
  EXPECT_EQ(gguf_->packing(module), "MXFP4");
  EXPECT_EQ(gguf_->packing("model.layers.1.self_attn.q_proj"), "");
}

}  // namespace
}  // namespace qlora::model
