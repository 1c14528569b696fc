// A small model of each kind of block on a GPU and on the CPU, whose numbers families_test.cpp
// compares with those of transformers: in float32 they may differ by the order of sums alone.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "base/device.h"
#include "base/seed.h"
#include "model/generate.h"
#include "model/load.h"
#include "quant/formats/grouped_weight.h"
#include "quant/formats/mxfp4_weight.h"
#include "tests/support/made_grouped.h"
#include "tests/support/next_token_targets.h"
#include "tests/support/small_models.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora::model {
namespace {
using nlohmann::json;

struct Kind {
  const char* name;
  json (*config)();
  const char* packing = "";  // gptq: of all layers; mxfp4: of experts
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

// A config.json like Llama's but for these keys.
json llama_like(const char* others) {
  json config = json::parse(R"({"vocab_size": 258, "hidden_size": 32, "intermediate_size": 64,
      "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
      "max_position_embeddings": 256, "tie_word_embeddings": true})");
  config.update(json::parse(others));
  return config;
}

json llama() { return llama_like(R"({"model_type": "llama"})"); }
json gemma2() {
  return llama_like(R"({"model_type": "gemma2", "query_pre_attn_scalar": 8, "sliding_window": 8,
      "attn_logit_softcapping": 1.5, "final_logit_softcapping": 3.0})");
}
json granite() {
  return llama_like(R"({"model_type": "granite", "attention_multiplier": 0.2,
      "embedding_multiplier": 3.0, "logits_scaling": 2.5, "residual_multiplier": 0.4})");
}
json cohere() {
  return llama_like(R"({"model_type": "cohere", "use_qk_norm": true, "logit_scale": 0.3})");
}
json mixtral() {
  return llama_like(R"({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2,
      "tie_word_embeddings": false})");
}
json qwen2_moe() {
  return llama_like(R"({"model_type": "qwen2_moe", "num_experts": 6, "num_experts_per_tok": 2,
      "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48})");
}
json gpt_oss() {
  return llama_like(R"({"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2,
      "swiglu_limit": 1.0, "sliding_window": 8})");
}
json t5() {
  return json::parse(R"({"model_type": "t5", "vocab_size": 258, "d_model": 32, "d_kv": 8,
      "d_ff": 48, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2, "pad_token_id": 0,
      "decoder_start_token_id": 3, "feed_forward_proj": "gated-gelu"})");
}

// Of layers that see a few keys before each token alone, by family.
json mistral() { return llama_like(R"({"model_type": "mistral", "sliding_window": 8})"); }
json gemma3() {
  return llama_like(R"({"model_type": "gemma3_text", "query_pre_attn_scalar": 8,
      "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
      "final_logit_softcapping": 3.0})");
}
json gpt_neo() {
  return json::parse(R"({"model_type": "gpt_neo", "vocab_size": 258, "hidden_size": 32,
      "num_layers": 2, "num_heads": 4, "window_size": 8, "max_position_embeddings": 256,
      "attention_types": [[["global", "local"], 1]]})");
}
// Biases of positions (ALiBi), with slopes of a number of heads that is no power of two.
json mpt() {
  return json::parse(R"({"model_type": "mpt", "vocab_size": 258, "d_model": 48, "n_layers": 2,
      "n_heads": 6, "max_seq_len": 256,
      "attn_config": {"alibi": true, "clip_qkv": 0.8, "softmax_scale": 0.3}})");
}
json falcon_rw() {
  return json::parse(R"({"model_type": "falcon", "vocab_size": 258, "hidden_size": 48,
      "num_hidden_layers": 2, "num_attention_heads": 6, "num_kv_heads": 6, "alibi": true,
      "bias": true, "multi_query": false, "new_decoder_architecture": false,
      "parallel_attn": false})");
}
json qwen3_moe() {
  return llama_like(R"({"model_type": "qwen3_moe", "num_experts": 6, "num_experts_per_tok": 2,
      "moe_intermediate_size": 32})");
}
json granite_moe() {
  return llama_like(R"({"model_type": "granitemoe", "num_local_experts": 4,
      "num_experts_per_tok": 2, "attention_multiplier": 0.2, "embedding_multiplier": 3.0,
      "logits_scaling": 2.5, "residual_multiplier": 0.4})");
}
json olmoe() {
  return llama_like(R"({"model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 2,
      "clip_qkv": 0.8})");
}
// Without a gate, and with a head of its own.
json t5_ungated() {
  json config = t5();
  config.update(json::parse(R"({"feed_forward_proj": "relu", "tie_word_embeddings": false})"));
  return config;
}

constexpr Kind kKinds[] = {
    {"Llama", llama},
    {"Gptq", llama, "gptq"},
    {"Gpt2", [] { return test::small_gpt2().config; }},
    {"GptJ", [] { return test::small_gptj().config; }},
    {"GptNeox", [] { return test::small_gpt_neox().config; }},
    {"Opt", [] { return test::small_opt().config; }},
    {"Opt350m", [] { return test::small_opt_350m().config; }},
    {"Bloom", [] { return test::small_bloom().config; }},
    {"BloomOntoNormed", [] { return test::small_bloom(2, true).config; }},
    {"Falcon", [] { return test::small_falcon().config; }},
    {"Ministral3", [] { return test::small_ministral3(0.3).config; }},
    {"Gemma2", gemma2},
    {"Granite", granite},
    {"Qwen3", [] { return llama_like(R"({"model_type": "qwen3"})"); }},
    {"Olmo", [] { return llama_like(R"({"model_type": "olmo", "clip_qkv": 0.8})"); }},
    {"Olmo2", [] { return llama_like(R"({"model_type": "olmo2"})"); }},
    {"Cohere", cohere},
    {"Mixtral", mixtral},
    {"Qwen2Moe", qwen2_moe},
    {"GptOss", gpt_oss},
    {"GptOssMxfp4", gpt_oss, "mxfp4"},
    {"T5", t5},
    {"Mistral", mistral},
    {"Gemma3", gemma3},
    {"GptNeo", gpt_neo},
    {"Mpt", mpt},
    {"FalconRw", falcon_rw},
    {"Qwen3Moe", qwen3_moe},
    {"GraniteMoe", granite_moe},
    {"Olmoe", olmoe},
    {"T5Ungated", t5_ungated},
};

// Weights that are functions of their names alone, those of norms around 1, others around 0.
class NamedWeights final : public WeightSource {
 public:
  explicit NamedWeights(const Kind& kind) : packing_(kind.packing) {
    architecture_ = test::described(kind.config());
    place_ = kind.name;
    for_each_linear(architecture_, [this](const std::string& module, const LinearSpec& linear) {
      if (!linear.bias) without_bias_.insert(module + ".bias");
    });
  }

  bool has(const std::string& name) const override { return !without_bias_.contains(name); }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    const bool of_norm =
        name.ends_with(".weight") && (shape.size() == 1 || name.find("norm") != std::string::npos);
    at::Tensor tensor = at::empty(shape, at::kFloat);
    const uint64_t key = random_key(11, name);
    float* values = tensor.mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i)
      values[i] = 0.15f * normal(key, static_cast<uint64_t>(i)) + (of_norm ? 1.0f : 0.0f);
    return tensor.to(dtype);
  }

  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in, const quant::QuantizationOptions&,
                                                   at::Device device) override {
    auto weight = packed(module, out, in);
    if (!weight) return nullptr;
    for (at::Tensor* part : weight->parts())
      if (part->defined()) *part = part->to(device);
    return weight;
  }

  at::ScalarType dtype() const override { return at::kFloat; }
  std::string packing(const std::string&) const override { return ""; }
  std::vector<std::string> unread() const override { return {}; }

 private:
  std::unique_ptr<quant::FrozenWeight> packed(const std::string& module, int64_t out,
                                              int64_t in) const {
    const uint64_t seed = random_key(11, module);
    if (packing_ == "gptq" && module.find("layers.") != std::string::npos)
      return std::make_unique<quant::GroupedWeight>(test::made({4, out, in, 16}, seed).weight,
                                                    "gptq, 4 bit");
    if (packing_ != "mxfp4" || module.find(".experts.") == std::string::npos) return nullptr;
    at::manual_seed(seed);
    return std::make_unique<quant::Mxfp4Weight>(at::randint(0, 256, {out, in / 2}, at::kByte),
                                                at::randint(121, 124, {out, in / 32}, at::kByte));
  }

  std::string packing_;
  std::set<std::string> without_bias_;
};

struct Adapted {
  std::unique_ptr<CausalLm> model;
  std::unique_ptr<lora::AdapterSet> adapters;
};

Adapted adapted(const Kind& kind, at::Device device, at::ScalarType compute) {
  NamedWeights source(kind);
  ModelOptions options;
  options.dtype = compute == at::kFloat ? "float32" : "bfloat16";
  Adapted made;
  made.model = load_model(source, options, {}, device, compute);
  made.adapters = test::tiny_adapters(*made.model, true);
  return made;
}

// The mean over all tokens that follow another; its gradients are the adapters'.
double loss_of(const Adapted& on, RecomputedLayers recomputed = false) {
  CausalLm& model = *on.model;
  ForwardInput input = test::tiny_input({20, 5});
  input.training = true;
  input.recompute_layers = recomputed;
  if (model.architecture().has_encoder()) {
    const ForwardInput texts = test::tiny_input({7, 12}, 8);
    input.source = {texts.tokens, texts.cu_seqlens};
  }
  on.adapters->zero_gradients();
  const at::Tensor loss = trainer::fused_cross_entropy(
      model.hidden(input), test::next_token_targets(input), model.head, 1.0 / (19 + 4),
      model.context(input), model.architecture().logit_softcap);
  loss.backward();
  return loss.item<double>();
}

std::vector<std::vector<int32_t>> greedy_answers(const Adapted& on) {
  const std::vector<int32_t> tokens = test::tiny_input({15}).tokens;
  GenerateOptions options;
  options.max_new_tokens = 8;
  return generate(*on.model,
                  {{tokens.begin(), tokens.begin() + 12}, {tokens.end() - 3, tokens.end()}},
                  options);
}

class FamiliesGpu : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no GPU";
  }
  static Adapted on_cpu(at::ScalarType compute) { return adapted(GetParam(), at::kCPU, compute); }
  static Adapted on_gpu(at::ScalarType compute) {
    return adapted(GetParam(), at::Device("cuda:0"), compute);
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, FamiliesGpu, testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(FamiliesGpu, LossAndGradientsAreThoseOfTheCpu) {
  const Adapted cpu = on_cpu(at::kFloat), gpu = on_gpu(at::kFloat);
  EXPECT_NEAR(loss_of(gpu), loss_of(cpu), 2e-5);
  const auto &found = gpu.adapters->tensors(), &wanted = cpu.adapters->tensors();
  ASSERT_EQ(found.size(), wanted.size());
  const float largest = cpu.adapters->gradients().abs().max().item<float>();
  ASSERT_GT(largest, 0);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const at::Tensor difference = found[i].gradient.cpu() - wanted[i].gradient;
    EXPECT_LE(difference.abs().max().item<float>(), 1e-4f * largest) << wanted[i].name;
  }
}

TEST_P(FamiliesGpu, RecomputedLayersGiveTheSameBits) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(compute));
    const Adapted gpu = on_gpu(compute);
    const double kept = loss_of(gpu);
    const at::Tensor gradients = gpu.adapters->gradients().clone();
    for (const RecomputedLayers& layers : {RecomputedLayers::first(1), RecomputedLayers(true)}) {
      EXPECT_EQ(loss_of(gpu, layers), kept);
      EXPECT_TRUE(at::equal(gpu.adapters->gradients(), gradients));
    }
  }
}

TEST_P(FamiliesGpu, GreedyAnswersAreThoseOfTheCpu) {
  EXPECT_EQ(greedy_answers(on_gpu(at::kFloat)), greedy_answers(on_cpu(at::kFloat)));
}

TEST_P(FamiliesGpu, InBfloat16TheLossIsThatOfTheCpu) {
  EXPECT_NEAR(loss_of(on_gpu(at::kBFloat16)), loss_of(on_cpu(at::kBFloat16)), 2e-2);
}

}  // namespace
}  // namespace qlora::model
