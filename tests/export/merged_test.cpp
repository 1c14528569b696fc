// The merged export against its formula, W = round(dequantize(W_base) + scaling B A), computed here
// in double. Where base, A and B are multiples of a power of two that leave the fp32 sum exact, no
// order of summation can change it, and the file must have the very bytes.
#include "export/merged.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "quant/make_frozen_weight.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::exporting {
namespace {
using test::TempDir;
using ::testing::HasSubstr;

constexpr int64_t kVocabulary = 258;  // that of the tiny tokenizer

// fp32 to bf16, to nearest and ties to even, on the bits.
uint16_t bf16_bits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_bf16_bits(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

std::vector<uint16_t> bits_of(const at::Tensor& bf16) {
  const auto* first = static_cast<const uint16_t*>(bf16.const_data_ptr());
  return {first, first + bf16.numel()};
}

void snap_to_grid(const at::Tensor& values, double steps) {
  at::NoGradGuard no_grad;
  at::Tensor(values).copy_(values.mul(steps).round().div(steps));
}

struct TrainedTiny {
  TempDir dir;
  std::unique_ptr<model::CausalLm> model = test::tiny_model(at::kBFloat16, 1, kVocabulary);
  std::unique_ptr<lora::AdapterSet> adapters;
  std::unique_ptr<data::Tokenizer> tokenizer;

  TrainedTiny() {
    test::write_tiny_directory(dir / "model");
    tokenizer = data::load_tokenizer(dir / "model");
    std::filesystem::create_directory(dir / "merged");
  }
  void attach() { adapters = test::tiny_adapters(*model, true); }
  // Bases in bf16 and adapters so that scaling B A + W is exact in fp32, and not in bf16.
  void attach_on_a_grid() {
    for (lora::LinearGroup* group : model->groups())
      for (lora::LoraLinear& linear : group->layers())
        linear.base = std::make_unique<quant::DenseWeight>(
            dequantized(linear).mul(4096).round().div(4096).to(at::kBFloat16));
    attach();
    snap_to_grid(adapters->values(), 64);
    adapters->publish();
  }
  static at::Tensor dequantized(const lora::LoraLinear& linear) {
    at::Tensor weight = at::empty({linear.out_features(), linear.in_features()}, at::kFloat);
    linear.base->dequantize_rows(0, 0, linear.out_features(), weight);
    return weight;
  }
  std::map<std::string, at::Tensor> write(at::ScalarType dtype) {
    write_merged(dir / "merged", *model, *tokenizer, nullptr, dir / "model", dtype);
    std::map<std::string, at::Tensor> written;
    for (auto& [name, tensor] : quant::read_tensors(dir / "merged/model.safetensors"))
      written.emplace(name, tensor);
    return written;
  }
};

// Element [row, column] of scaling B A, summed in double.
double product(const lora::Adapter& adapter, int64_t row, int64_t column) {
  const at::Tensor a = adapter.a.detach(), b = adapter.b.detach();
  double sum = 0;
  for (int64_t r = 0; r < adapter.rank; ++r)
    sum += static_cast<double>(b.const_data_ptr<float>()[row * adapter.rank + r]) *
           static_cast<double>(a.const_data_ptr<float>()[r * a.size(1) + column]);
  return adapter.scaling * sum;
}

// f(linear, row, column, base weight) for every weight that an adapter changes.
template <typename F>
void for_each_weight(const model::CausalLm& model, const F& f) {
  for (lora::LinearGroup* group : const_cast<model::CausalLm&>(model).groups())
    for (const lora::LoraLinear& linear : group->layers()) {
      const at::Tensor base = TrainedTiny::dequantized(linear);
      for (int64_t i = 0; i < base.numel(); ++i)
        f(linear, i / base.size(1), i % base.size(1), base.const_data_ptr<float>()[i]);
    }
}

TEST(Merged, EachWeightIsTheFp32SumRoundedOnce) {
  TrainedTiny trained;
  trained.attach_on_a_grid();
  const auto written = trained.write(at::kBFloat16);
  std::map<std::string, std::vector<uint16_t>> expected;
  int64_t twice_differs = 0;
  for_each_weight(*trained.model,
                  [&](const lora::LoraLinear& linear, int64_t row, int64_t column, float base) {
                    const double delta = product(*linear.adapter, row, column);
                    const auto sum = static_cast<float>(base + delta);
                    ASSERT_EQ(static_cast<double>(sum), base + delta) << "not exact in fp32";
                    expected[linear.name + ".weight"].push_back(bf16_bits(sum));
                    const float rounded = from_bf16_bits(bf16_bits(static_cast<float>(delta)));
                    twice_differs += bf16_bits(base + rounded) != bf16_bits(sum);
                  });
  EXPECT_EQ(expected.size(), 14u);
  for (const auto& [name, bits] : expected) {
    ASSERT_TRUE(written.contains(name)) << name;
    EXPECT_EQ(bits_of(written.at(name)), bits) << name;
  }
  EXPECT_GT(twice_differs, 100);  // else these weights could not tell one rounding from two
}

TEST(Merged, OnNf4ItIsWithinHalfAUnitOfTheExactSum) {
  TrainedTiny trained;
  quant::QuantizationOptions nf4;
  nf4.method = "nf4";
  nf4.block_size = 32;
  for (lora::LinearGroup* group : trained.model->groups())
    for (lora::LoraLinear& linear : group->layers())
      linear.base = quant::make_frozen_weight(TrainedTiny::dequantized(linear), nf4, linear.name);
  trained.attach();
  auto written = trained.write(at::kBFloat16);
  for_each_weight(
      *trained.model, [&](const lora::LoraLinear& linear, int64_t row, int64_t column, float base) {
        const double exact = base + product(*linear.adapter, row, column);
        const at::Tensor& file = written.at(linear.name + ".weight");
        const double found = from_bf16_bits(
            static_cast<const uint16_t*>(file.const_data_ptr())[row * file.size(1) + column]);
        const double half_unit = std::ldexp(1.0, std::ilogb(exact) - 8);
        // 1e-6: what the fp32 sum of numbers around 1 may be off
        EXPECT_LE(std::abs(found - exact), half_unit + 1e-6) << linear.name;
      });
}

TEST(Merged, WithoutAdaptersTheBaseIsWrittenBitForBit) {
  TrainedTiny trained;
  const auto written = trained.write(at::kBFloat16);
  const auto source = quant::read_tensors(trained.dir / "model/model.safetensors");
  ASSERT_EQ(written.size(), source.size());
  for (const auto& [name, tensor] : source) {
    ASSERT_TRUE(written.contains(name)) << name;
    EXPECT_EQ(bits_of(written.at(name)), bits_of(tensor)) << name;
  }
}

TEST(Merged, HoldsTheNamesOfThePlainModelAndNoneOfTheAdapter) {
  TrainedTiny trained;
  trained.attach();
  std::set<std::string> expected, found;
  for (const auto& [name, tensor] : quant::read_tensors(trained.dir / "model/model.safetensors"))
    expected.insert(name);
  for (const auto& [name, tensor] : trained.write(at::kBFloat16)) found.insert(name);
  EXPECT_EQ(found, expected);
  EXPECT_FALSE(found.contains("lm_head.weight"));  // tied to the embedding
}

TEST(Merged, ATrainedBiasIsWrittenAsItWasTrainedNotAsItIsComputedWith) {
  TrainedTiny trained;
  const lora::LinearGroup& down = *trained.model->groups().back();
  auto& layer = const_cast<lora::LoraLinear&>(down.layers().front());
  layer.bias = at::zeros({layer.out_features()}, at::kBFloat16);
  lora::LoraOptions options;
  options.bias = "all";
  trained.adapters =
      std::make_unique<lora::AdapterSet>(options, trained.model->groups(), at::kBFloat16, 1);
  layer.trained_bias->value.fill_(1.0f / 3);
  trained.adapters->publish();
  auto written = trained.write(at::kFloat);
  ASSERT_TRUE(written.contains(layer.name + ".bias"));
  EXPECT_TRUE(at::equal(written.at(layer.name + ".bias"), layer.trained_bias->value));
}

TEST(Merged, TheConfigIsTheSourcesWithoutItsQuantization) {
  TrainedTiny trained;
  auto config = nlohmann::json::parse(test::read_file(trained.dir / "model/config.json"));
  config["quantization_config"] = {{"load_in_4bit", true}};
  config["a_key_of_tomorrow"] = 7;
  trained.dir.write("model/config.json", config.dump());
  trained.write(at::kHalf);
  const auto written = nlohmann::json::parse(test::read_file(trained.dir / "merged/config.json"));
  config.erase("quantization_config");
  config["torch_dtype"] = "float16";
  EXPECT_EQ(written, config);
}

// What training did to the embeddings, as the files say it.
struct Embeddings {
  at::Tensor embedding, head;  // head: undefined if it is not there
  bool tied;
};

Embeddings write_with(const lora::LoraOptions& options, TrainedTiny& trained) {
  trained.adapters = std::make_unique<lora::AdapterSet>(options, trained.model->parts(),
                                                        trained.model->compute_dtype(), 1);
  at::NoGradGuard no_grad;
  for (const auto& tensor : trained.adapters->tensors())
    if (tensor.name.find("lora_") == std::string::npos) at::Tensor(tensor.value).add_(1.0);
  trained.adapters->publish();
  const auto written = trained.write(at::kFloat);
  const auto config = nlohmann::json::parse(test::read_file(trained.dir / "merged/config.json"));
  const auto head = written.find("lm_head.weight");
  return {written.at("model.embed_tokens.weight"),
          head == written.end() ? at::Tensor() : head->second, config.at("tie_word_embeddings")};
}

TEST(Merged, TiedEmbeddingsThatTrainingPartedAreWrittenAsTwo) {
  TrainedTiny trained;
  const at::Tensor base = trained.model->embedding.weight.to(at::kFloat);
  lora::LoraOptions options;
  options.modules_to_save = {"embed_tokens"};
  const Embeddings found = write_with(options, trained);
  EXPECT_FALSE(found.tied);
  EXPECT_TRUE(at::equal(found.embedding, base + 1));
  ASSERT_TRUE(found.head.defined());
  EXPECT_TRUE(at::equal(found.head, base));
}

TEST(Merged, TiedEmbeddingsThatStayedTiedAreWrittenOnce) {
  for (const bool rows : {false, true}) {
    TrainedTiny trained;
    at::Tensor expected = trained.model->embedding.weight.to(at::kFloat).clone();
    lora::LoraOptions options;
    options.modules_to_save = {"norm"};
    if (rows) {
      options.trainable_token_indices["embed_tokens"] = {3, 250};
      for (const int64_t id : {3, 250}) expected[id].add_(1);
    } else {
      options.modules_to_save.emplace_back("lm_head");
      options.ensure_weight_tying = true;
      expected.add_(1);
    }
    const Embeddings found = write_with(options, trained);
    EXPECT_TRUE(found.tied) << rows;
    EXPECT_FALSE(found.head.defined()) << rows;
    EXPECT_TRUE(at::equal(found.embedding, expected)) << rows;
  }
}

TEST(Merged, TheAdapterOfATiedHeadIsAddedToTheTrainedTokens) {
  TrainedTiny trained;
  at::Tensor expected = trained.model->embedding.weight.to(at::kFloat).clone();
  lora::LoraOptions options;
  options.targets = {"q_proj", "lm_head"};
  options.init = "gaussian";
  options.trainable_token_indices["embed_tokens"] = {3, 250};
  for (const int64_t id : {3, 250}) expected[id].add_(1);
  trained.adapters = std::make_unique<lora::AdapterSet>(options, trained.model->parts(),
                                                        trained.model->compute_dtype(), 1);
  at::NoGradGuard no_grad;
  for (const auto& tensor : trained.adapters->tensors())
    if (tensor.name.ends_with("trainable_tokens_delta")) at::Tensor(tensor.value).add_(1.0);
  const lora::Adapter& adapter = *trained.model->head.layers().front().adapter;
  at::Tensor(adapter.b).fill_(0.5);
  trained.adapters->publish();
  const auto written = trained.write(at::kFloat);
  EXPECT_TRUE(at::equal(written.at("model.embed_tokens.weight"), expected));
  const at::Tensor product = adapter.b.mm(adapter.a) * adapter.scaling;
  EXPECT_GT(product.abs().max().item<double>(), 1e-2);
  EXPECT_TRUE(at::allclose(written.at("lm_head.weight"), expected + product, 1e-5, 1e-5));
}

TEST(Merged, NormsAndLinearModulesTrainedWholeReplaceTheBases) {
  TrainedTiny trained;
  const at::Tensor norm = trained.model->final_norm.frozen.clone();
  const at::Tensor o =
      TrainedTiny::dequantized(trained.model->layers[0].branches[0].out.layers()[0]);
  lora::LoraOptions options;
  options.modules_to_save = {"norm", "o_proj"};
  write_with(options, trained);
  std::map<std::string, at::Tensor> written;
  for (auto& [name, tensor] : quant::read_tensors(trained.dir / "merged/model.safetensors"))
    written.emplace(name, tensor);
  EXPECT_TRUE(at::equal(written.at("model.norm.weight"), norm + 1));
  EXPECT_TRUE(at::equal(written.at("model.layers.0.self_attn.o_proj.weight"), o + 1));
}

TEST(Merged, AWeightTooLargeForFp16IsNamed) {
  TrainedTiny trained;
  trained.attach();
  lora::LoraLinear& linear = trained.model->groups().back()->layers().front();
  linear.adapter->b.fill_(1e6f);
  try {
    trained.write(at::kHalf);
    FAIL() << "was written";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(linear.name + ".weight"));
    EXPECT_THAT(error.what(), HasSubstr("bfloat16"));
  }
}

}  // namespace
}  // namespace qlora::exporting
