// A model whose blocks lie elsewhere is, bit for bit, the one that has them in memory, and keeps no
// more than two of them there.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/device.h"
#include "base/error.h"
#include "model/generate.h"
#include "model/load.h"
#include "tests/support/next_token_targets.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora::model {
namespace {
using quant::Home;
using test::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int64_t kLayers = 6;
constexpr const char* kConfig =
    R"({"model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 258, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})";

Placement all_in(Home home) { return {std::vector<Home>(static_cast<size_t>(kLayers), home), ""}; }

Placement some_in(Home home) {
  Placement placement = all_in(Home::kDevice);
  for (const size_t layer : {0u, 2u, 3u, 5u}) placement.layers[layer] = home;
  return placement;
}

// What a model gives: the loss and the gradients of a batch, and the answers to prompts.
struct Given {
  float loss;
  at::Tensor gradients;
  std::vector<std::vector<int32_t>> tokens;

  bool operator==(const Given& other) const {
    return loss == other.loss && at::equal(gradients, other.gradients) && tokens == other.tokens;
  }
};

class OffloadedModel : public ::testing::Test {
 protected:
  OffloadedModel() { test::write_made_directory(dir_ / "m", kConfig); }

  std::unique_ptr<CausalLm> load(const Placement& placement, const std::string& method = "nf4",
                                 at::ScalarType compute = at::kFloat) const {
    quant::QuantizationOptions quantization;
    quantization.method = method;
    ModelOptions options;
    options.offload_dir = dir_ / "spilled";
    return load_model(*open_weights(dir_ / "m"), options, quantization, device_, compute, {},
                      placement);
  }

  static float backward(CausalLm& model, lora::AdapterSet& adapters, RecomputedLayers recompute) {
    adapters.zero_gradients();
    ForwardInput input = test::tiny_input({19, 7, 30});
    input.training = true;
    input.dropout_key = 11;
    input.recompute_layers = recompute;
    const at::Tensor loss =
        trainer::fused_cross_entropy(model.hidden(input), test::next_token_targets(input),
                                     model.head, 0.1, model.context(input));
    loss.backward();
    return loss.item<float>();
  }

  static Given given(CausalLm& model, RecomputedLayers recompute) {
    const auto adapters = test::tiny_adapters(model, true, 0.1);
    Given given{backward(model, *adapters, recompute), {}, {}};
    given.gradients = adapters->gradients().clone();
    GenerateOptions options;
    options.max_new_tokens = 5;
    given.tokens = generate(model, {{5, 9, 2}, {40, 3}}, options);
    return given;
  }

  // Bytes of the offload file's pages that the process has resident.
  int64_t resident() const {
    std::ifstream maps("/proc/self/smaps");
    bool ours = false;
    int64_t kilobytes = 0;
    for (std::string line; std::getline(maps, line);) {
      if (line.find('-') != std::string::npos && line.find(" r") != std::string::npos)
        ours = line.find(dir_ / "spilled") != std::string::npos;
      if (ours && line.starts_with("Rss:")) {
        std::istringstream value(line.substr(4));
        int64_t one = 0;
        value >> one;
        kilobytes += one;
      }
    }
    return kilobytes * 1024;
  }

  // The loss, gradients and answers of a model in memory, and of one with its blocks elsewhere.
  void expect_the_same(const std::string& method, at::ScalarType compute) const {
    const Given expected = given(*load({}, method, compute), false);
    ASSERT_GT(expected.gradients.norm().item<float>(), 0);
    for (const Home home : {Home::kDisk, Home::kHost})
      for (const Placement& placement : {all_in(home), some_in(home)}) {
        SCOPED_TRACE(method + ", " + placement.to_text());
        const auto model = load(placement, method, compute);
        EXPECT_EQ(model->offload->near().size(), 0u);
        EXPECT_EQ(given(*model, false), expected);
        EXPECT_EQ(given(*model, true), expected);
        EXPECT_LE(model->offload->near().size(), 2u);
      }
  }

  TempDir dir_;
  at::Device device_ = at::kCPU;
};

class OffloadedModelGpu : public OffloadedModel {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no GPU";
    device_ = at::Device("cuda:0");
  }
};

TEST_F(OffloadedModel, LossGradientsAndAnswersAreThoseOfTheModelInMemory) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16})
    for (const char* method : {"nf4", "int8", "none"}) expect_the_same(method, compute);
}

TEST_F(OffloadedModelGpu, LossGradientsAndAnswersAreThoseOfTheModelOnTheGpu) {
  for (const char* method : {"nf4", "int8", "none"}) expect_the_same(method, at::kBFloat16);
}

TEST_F(OffloadedModel, SoTheyAreWithSomeLayersRecomputed) {
  const Given expected = given(*load({}), false);
  for (const Home home : {Home::kDisk, Home::kHost})
    for (const Placement& placement : {all_in(home), some_in(home)}) {
      SCOPED_TRACE(placement.to_text());
      EXPECT_EQ(given(*load(placement), RecomputedLayers::first(3)), expected);
    }
}

TEST_F(OffloadedModel, TheBackwardPassEndsWithTheFirstBlocksNear) {
  const auto model = load(all_in(Home::kDisk));
  const auto adapters = test::tiny_adapters(*model, true);
  backward(*model, *adapters, false);
  EXPECT_THAT(model->offload->near(), ElementsAre(0, 1));
}

TEST_F(OffloadedModel, AdaptersLieWhereProductsAreMadeAndTheHashIsThatOfTheSameBase) {
  const auto plain = load({}), away = load(all_in(Home::kDisk));
  EXPECT_EQ(away->base_hash(), plain->base_hash());
  for (const lora::LinearGroup* group : away->groups())
    for (const lora::LoraLinear& layer : group->layers())
      EXPECT_EQ(layer.base->device(), away->device()) << layer.name;
}

TEST_F(OffloadedModel, NoMoreThanTwoBlocksOfPagesStayInMemory) {
  const auto model = load(all_in(Home::kDisk));
  int64_t block = 0;
  for (const lora::LinearGroup* group : model->layers[0].groups())
    for (const lora::LoraLinear& layer : group->layers()) block += layer.base->bytes();
  // The system maps the pages around one that is touched, up to 64 KB, which may be another
  // block's.
  const int64_t most = 2 * block + kLayers * (64 << 10);
  ASSERT_LT(most, (kLayers - 1) * block);
  EXPECT_LE(resident(), most);
  const auto adapters = test::tiny_adapters(*model, true);
  for (const RecomputedLayers recompute : {RecomputedLayers(false), RecomputedLayers(true)}) {
    backward(*model, *adapters, recompute);
    EXPECT_GT(resident(), 0);
    EXPECT_LE(resident(), most);
  }
  model->base_hash();
  EXPECT_LE(resident(), most);
}

TEST_F(OffloadedModel, OnlyBlocksOnDiskAreWritten) {
  const auto all = load(all_in(Home::kDisk)), some = load(some_in(Home::kDisk));
  EXPECT_GT(some->offload->written_bytes(), 0);
  EXPECT_EQ(some->offload->written_bytes() * 6, all->offload->written_bytes() * 4);
  EXPECT_EQ(load(some_in(Home::kHost))->offload->written_bytes(), 0);
  EXPECT_EQ(load({})->offload, nullptr);
}

TEST_F(OffloadedModel, WithoutADirectoryForThemBlocksOnDiskAreRefused) {
  const auto source = open_weights(dir_ / "m");
  EXPECT_THAT([&] { load_model(*source, {}, {}, at::kCPU, at::kFloat, {}, all_in(Home::kDisk)); },
              ThrowsMessage<ConfigError>(HasSubstr("model.offload_dir")));
}

}  // namespace
}  // namespace qlora::model
