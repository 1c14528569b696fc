// GPT-2's matrices, which files hold as [in, out].
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/load.h"
#include "quant/make_frozen_weight.h"
#include "tests/support/small_models.h"
#include "tests/support/temp_dir.h"

namespace qlora::model {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

at::Tensor values_of(const quant::FrozenWeight& weight) {
  at::Tensor values = at::empty({weight.out_features(), weight.in_features()}, at::kFloat);
  weight.dequantize_rows(0, 0, weight.out_features(), values);
  return values;
}

TEST(Conv1d, IsLoadedAsTheTransposeOfWhatTheFileHolds) {
  const test::SmallModel small = test::small_gpt2();
  const auto model = small.load();
  int64_t layers = 0;
  for (const lora::LinearGroup* group : model->groups())
    for (const lora::LoraLinear& linear : group->layers()) {
      EXPECT_TRUE(linear.stored_by_inputs) << linear.name;
      EXPECT_TRUE(at::equal(values_of(*linear.base), small.at(linear.name + ".weight").t()))
          << linear.name;
      EXPECT_TRUE(at::equal(linear.bias, small.at(linear.name + ".bias"))) << linear.name;
      ++layers;
    }
  EXPECT_EQ(layers, 2 * 4);
  EXPECT_FALSE(model->head.layers().front().stored_by_inputs);
}

TEST(Conv1d, IsQuantizedAlongItsInputs) {
  const test::SmallModel small = test::small_gpt2();
  quant::QuantizationOptions nf4;
  nf4.method = "nf4";
  const auto model = small.load(at::kFloat, {}, nf4);
  const lora::LoraLinear& up = model->layers.at(1).branches.at(1).in.layers().front();
  ASSERT_EQ(up.name, "transformer.h.1.mlp.c_fc");
  const at::Tensor transposed = small.at(up.name + ".weight").t().contiguous();
  EXPECT_TRUE(at::equal(values_of(*up.base),
                        values_of(*quant::make_frozen_weight(transposed, nf4, up.name))));
}

TEST(Conv1d, OfOutputsByInputsIsRefusedWithBothShapes) {
  test::SmallModel small = test::small_gpt2();
  at::Tensor& weight = small.tensors.at("transformer.h.0.mlp.c_fc.weight");
  weight = weight.t().contiguous();
  EXPECT_THAT([&] { small.load(); },
              ThrowsMessage<FormatError>(AllOf(HasSubstr("transformer.h.0.mlp.c_fc.weight"),
                                               HasSubstr("[32, 128]"), HasSubstr("[128, 32]"))));
}

// As GPT-2 was published: no prefix, masks among the weights.
TEST(Conv1d, IsFoundUnderBareNames) {
  const test::SmallModel small = test::small_gpt2();
  test::SmallModel published{small.config, {}};
  for (const auto& [name, tensor] : small.tensors)
    published.tensors.emplace(name.substr(std::string("transformer.").size()), tensor);
  for (const char* layer : {"h.0.attn.", "h.1.attn."}) {
    published.tensors.emplace(layer + std::string("bias"), at::ones({1, 1, 24, 24}));
    published.tensors.emplace(layer + std::string("masked_bias"), at::zeros({1}));
  }
  const test::TempDir dir;
  published.write_weights(dir.path());
  const auto source = open_weights(dir.path());
  const auto model = load_model(*source, {}, {}, at::kCPU, at::kFloat);
  EXPECT_THAT(source->unread(), IsEmpty());
  EXPECT_EQ(model->base_hash(), small.load()->base_hash());
}

TEST(MissingTensor, IsNamedAsTheFilesOfTheFamilyNameIt) {
  test::SmallModel small = test::small_gpt_neox();
  small.tensors.erase("embed_out.weight");
  EXPECT_THAT([&] { small.load(); }, ThrowsMessage<FormatError>(HasSubstr("embed_out.weight")));
}

}  // namespace
}  // namespace qlora::model
