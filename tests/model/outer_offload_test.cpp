// A model whose embedding and head lie elsewhere is the one that has them in memory.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/error.h"
#include "model/load.h"
#include "quant/offload/panel_weight.h"
#include "tests/support/next_token_targets.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora::model {
namespace {
using quant::Home;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string config(bool tied) {
  return std::string(
             R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
                 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "vocab_size": 258, "rms_norm_eps": 1e-5, "tie_word_embeddings": )") +
         (tied ? "true}" : "false}");
}

constexpr double kFloatSums = 1e-6;  // a few units in the last place, of sums in another order

struct Given {
  float loss;
  at::Tensor gradients;
  at::Tensor few, many;  // logits of two rows, as generation takes them, and of twenty
};

class OuterElsewhere : public ::testing::Test {
 protected:
  OuterElsewhere() {
    test::write_made_directory(dir_ / "tied", config(true));
    test::write_made_directory(dir_ / "apart", config(false));
  }

  static Placement placed(Home embedding, Home head) {
    Placement placement;
    placement.layers = {Home::kDevice, Home::kDevice};
    placement.embedding = embedding;
    placement.head = head;
    return placement;
  }

  std::unique_ptr<CausalLm> load(bool tied, const Placement& placement,
                                 at::ScalarType compute = at::kFloat,
                                 const std::string& upcast = "none") const {
    quant::QuantizationOptions nf4;
    nf4.method = "nf4";
    ModelOptions options;
    options.upcast = upcast;
    options.offload_dir = dir_ / "spilled";
    return load_model(*open_weights(dir_ / (tied ? "tied" : "apart")), options, nf4, device_,
                      compute, {}, placement);
  }

  static Given given(CausalLm& model, const lora::LoraOptions& options) {
    lora::AdapterSet adapters(options, model.parts(), model.compute_dtype(), 3);
    {
      const at::NoGradGuard no_grad;
      for (const auto& tensor : adapters.tensors())
        if (tensor.name.ends_with("lora_B.weight"))
          tensor.value.copy_(at::arange(tensor.value.numel(), at::kFloat)
                                 .remainder(19)
                                 .sub(9)
                                 .mul(0.02)
                                 .view(tensor.value.sizes()));
      adapters.publish();
    }
    ForwardInput input = test::tiny_input({19, 7, 30});
    input.training = true;
    const at::Tensor loss =
        trainer::fused_cross_entropy(model.hidden(input), test::next_token_targets(input),
                                     model.head, 0.1, model.context(input));
    loss.backward();
    const at::NoGradGuard no_grad;
    const at::Tensor hidden = model.hidden(input);
    return {loss.item<float>(), adapters.gradients().clone().cpu(),
            model.logits(hidden.narrow(0, 0, 2)).cpu(),
            model.logits(hidden.narrow(0, 0, 20)).cpu()};
  }

  static void expect_near(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
    EXPECT_LE((found - expected).norm().item<float>(), tolerance * expected.norm().item<float>());
  }

  // The same but for the order of sums: products of a head elsewhere are never joined with others,
  // nor made by the kernels for few rows.
  void expect_the_same(bool tied, const lora::LoraOptions& options, at::ScalarType compute,
                       double tolerance) const {
    const Given expected = given(*load(tied, {}, compute), options);
    ASSERT_GT(expected.gradients.norm().item<float>(), 0);
    for (const Home home : {Home::kDisk, Home::kHost}) {
      SCOPED_TRACE(static_cast<int>(home));
      const Given found = given(*load(tied, placed(home, home), compute), options);
      EXPECT_NEAR(found.loss, expected.loss, tolerance * expected.loss);
      expect_near(found.gradients, expected.gradients, tolerance);
      expect_near(found.few, expected.few, tolerance);
      expect_near(found.many, expected.many, tolerance);
    }
  }

  static lora::LoraOptions adapters_on(const std::vector<std::string>& targets) {
    lora::LoraOptions options;
    options.rank = 4;
    options.alpha = 8;
    options.targets = targets;
    return options;
  }

  const test::TempDir dir_;
  at::Device device_ = at::kCPU;
};

class OuterElsewhereGpu : public OuterElsewhere {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no GPU";
    device_ = at::Device("cuda:0");
  }
};

TEST_F(OuterElsewhere, LossGradientsAndLogitsAreThoseOfTheModelInMemory) {
  for (const bool tied : {true, false})
    expect_the_same(tied, adapters_on({"all-linear"}), at::kFloat, kFloatSums);
}

TEST_F(OuterElsewhere, SoTheyAreWithAnAdapterOnTheHead) {
  for (const bool dora : {false, true}) {
    lora::LoraOptions options = adapters_on({"q_proj", "lm_head"});
    options.use_dora = dora;
    expect_the_same(false, options, at::kFloat, 10 * kFloatSums);
  }
}

TEST_F(OuterElsewhere, SoTheyAreWithTrainedEmbeddings) {
  lora::LoraOptions whole = adapters_on({"q_proj"});
  whole.modules_to_save = {"embed_tokens", "lm_head"};
  expect_the_same(false, whole, at::kFloat, kFloatSums);
  lora::LoraOptions rows = adapters_on({"q_proj"});
  rows.trainable_token_indices["embed_tokens"] = {5, 9, 40};
  for (const bool tied : {true, false}) expect_the_same(tied, rows, at::kFloat, kFloatSums);
}

TEST_F(OuterElsewhereGpu, LossGradientsAndLogitsAreThoseOfTheModelOnTheGpu) {
  for (const bool tied : {true, false})
    expect_the_same(tied, adapters_on({"all-linear"}), at::kBFloat16, 0x1p-7);
  lora::LoraOptions rows = adapters_on({"q_proj"});
  rows.trainable_token_indices["embed_tokens"] = {5, 9, 40};
  expect_the_same(true, rows, at::kBFloat16, 0x1p-7);
}

TEST_F(OuterElsewhere, UpcastMatricesLieElsewhereToo) {
  const auto here = load(false, {}, at::kFloat, "all"),
             there = load(false, placed(Home::kDisk, Home::kDisk), at::kFloat, "all");
  EXPECT_EQ(there->embedding.weight.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(there->embedding.weight, here->embedding.weight));
  EXPECT_EQ(there->base_hash(), here->base_hash());
}

TEST_F(OuterElsewhere, TheBaseIsTheSameAndWhatTheFileHasIsNotWrittenAgain) {
  for (const bool tied : {true, false}) {
    const auto here = load(tied, {}), there = load(tied, placed(Home::kDisk, Home::kDisk));
    EXPECT_EQ(there->base_hash(), here->base_hash()) << tied;
    EXPECT_TRUE(there->embedding.in_file);
    EXPECT_NE(dynamic_cast<const quant::PanelWeight*>(there->head.layers().front().base.get()),
              nullptr);
    ASSERT_NE(there->offload, nullptr);
    EXPECT_EQ(there->offload->written_bytes(), 0) << tied;  // bfloat16 in the file and here
  }
  EXPECT_EQ(load(true, placed(Home::kHost, Home::kHost))->offload->written_bytes(), 0);
}

TEST_F(OuterElsewhere, OneOfTheTwoMayMoveAlone) {
  const lora::LoraOptions options = adapters_on({"all-linear"});
  const Given expected = given(*load(false, {}), options);
  for (const Placement& placement :
       {placed(Home::kDisk, Home::kDevice), placed(Home::kDevice, Home::kDisk)}) {
    const Given found = given(*load(false, placement), options);
    EXPECT_NEAR(found.loss, expected.loss, kFloatSums * expected.loss) << placement.to_text();
    expect_near(found.few, expected.few, kFloatSums);
  }
}

TEST_F(OuterElsewhere, WithoutADirectoryOnDiskIsRefused) {
  const auto source = open_weights(dir_ / "tied");
  EXPECT_THAT(
      [&] {
        load_model(*source, {}, {}, at::kCPU, at::kFloat, {}, placed(Home::kDisk, Home::kDisk));
      },
      ThrowsMessage<ConfigError>(HasSubstr("model.offload_dir")));
}

}  // namespace
}  // namespace qlora::model
