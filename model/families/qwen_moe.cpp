// Qwen 1.5-MoE, 2-MoE and 3-MoE (Yang et al. 2024, 2025): Qwen's block with experts in all layers
// or some; the second has an expert that every token uses, too.
#include <algorithm>

#include "model/families/expert_like.h"
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"
#include "model/file_facts.h"

namespace qlora::model {
namespace {

// mlp_only_layers have an MLP, and so have layers between the steps of decoder_sparse_step.
std::vector<bool> read_sparse_layers(ConfigReader& config, int64_t num_layers) {
  const int64_t step = config.integer({{"decoder_sparse_step"}}, 1, 1);
  std::vector<int64_t> dense;
  if (const auto list = config.node({{"mlp_only_layers"}}))
    for (const io::JsonNode& layer : list->elements())
      dense.push_back(layer.as_integer(0, num_layers - 1));
  return layers_where(num_layers, [&](int64_t layer) {
    return (layer + 1) % step == 0 && std::ranges::find(dense, layer) == dense.end();
  });
}

// Of the second: even layers below max_window_layers slide.
void read_windows(ConfigReader& config, Architecture& a) {
  const int64_t first = config.integer({{"max_window_layers"}}, 28);
  const auto types = read_layer_types(config, a.num_layers());
  const auto by_index = layers_where(
      a.num_layers(), [first](int64_t layer) { return layer % 2 == 0 && layer < first; });
  const auto slides = types.value_or(by_index);
  if (uses_window(config)) give_windows(a, read_window(config, 4096, slides), slides);
}

// "mlp.gate_proj" -> "mlp.shared_expert.gate_proj", "ffn_gate" -> "ffn_gate_shexp".
MlpSpec shared_expert(const MlpSpec& dense, int64_t inner) {
  MlpSpec shared = dense;
  shared.inner = inner;
  const auto rename = [](LinearSpec& linear) {
    linear.names.hugging_face.insert(std::string("mlp.").size(), "shared_expert.");
    linear.names.gguf += "_shexp";
    linear.bias_key.clear();
  };
  for (LinearSpec& linear : shared.in) {
    linear.out = inner;
    rename(linear);
  }
  shared.out.in = inner;
  rename(shared.out);
  return shared;
}

Architecture qwen2_moe(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, {.num_kv_heads = 16,
                                                     .vocab_size = 151936,
                                                     .hidden_size = 2048,
                                                     .intermediate_size = 5632,
                                                     .num_layers = 24,
                                                     .num_heads = 16,
                                                     .attention_bias_key = "",
                                                     .max_positions = 32768});
  const ExpertSizes expert_sizes = read_expert_sizes(
      config, sizes,
      {.experts = 60, .active = 4, .inner = 1408, .renormalise = false, .reads_norm_topk = true});
  const ConfigKey shared_key{{"shared_expert_intermediate_size"},
                             "expert_shared_feed_forward_length"};
  const int64_t shared_inner = config.size(shared_key, 5632, 1);
  const bool bias = config.boolean({{"qkv_bias"}}, true);
  Architecture a = llama_like("qwen2_moe", sizes);
  BlockSpec& block = a.decoder.kinds[0];
  for (LinearSpec& linear : block.attention().in) {
    linear.bias = bias;
    linear.bias_key = "qkv_bias";
  }
  ExpertsSpec experts = experts_of(sizes, expert_sizes);
  experts.shared = shared_expert(block.mlp(), shared_inner);
  experts.shared_gate = {{"mlp.shared_expert_gate", "ffn_gate_inp_shexp"}, 1, sizes.hidden_size};
  experts.shared_gate.never_quantized = true;
  read_windows(config, a);
  use_experts(a, experts, read_sparse_layers(config, a.num_layers()));
  return a;
}

Architecture qwen3_moe(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, {.num_kv_heads = 4,
                                                     .vocab_size = 151936,
                                                     .hidden_size = 2048,
                                                     .intermediate_size = 6144,
                                                     .num_layers = 24,
                                                     .num_heads = 32,
                                                     .max_positions = 32768});
  const ExpertsSpec experts = experts_of(sizes, read_expert_sizes(config, sizes,
                                                                  {.experts = 128,
                                                                   .active = 8,
                                                                   .inner = 768,
                                                                   .renormalise = true,
                                                                   .reads_norm_topk = true}));
  Architecture a = llama_like("qwen3_moe", sizes);
  AttentionSpec& attention = a.decoder.kinds[0].attention();
  attention.q_norm = head_norm("self_attn.q_norm", "attn_q_norm", sizes);
  attention.k_norm = head_norm("self_attn.k_norm", "attn_k_norm", sizes);
  config.note_read({"max_window_layers"});
  give_windows(a, read_used_window(config, 4096), std::vector<bool>(a.num_layers(), true));
  use_experts(a, experts, read_sparse_layers(config, a.num_layers()));
  a.targets_mean_experts = true;
  return a;
}

void write_experts(ConfigWriter& config, const Architecture& a) {
  const ExpertsSpec& experts = *first_experts(a);
  write_expert_counts(config, a, "num_experts");
  config.integer("moe_intermediate_size", experts.inner);
  config.flag("norm_topk_prob", experts.routing.renormalise);
  config.integer("decoder_sparse_step", 1);
  std::vector<int64_t> dense;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    if (!a.block(layer).branches.at(1).experts()) dense.push_back(layer);
  config.integers("mlp_only_layers", dense);
}

void write_qwen2_moe(ConfigWriter& config, const Architecture& a) {
  config.model("qwen2_moe", "Qwen2MoeForCausalLM");
  write_llama_sizes(config, a);
  write_experts(config, a);
  config.integer("shared_expert_intermediate_size", first_experts(a)->shared->inner);
  config.flag("qkv_bias", a.block(0).attention().in.front().bias);
}

void write_qwen3_moe(ConfigWriter& config, const Architecture& a) {
  config.model("qwen3_moe", "Qwen3MoeForCausalLM");
  write_llama_sizes(config, a);
  write_experts(config, a);
}

}  // namespace

Family qwen2_moe_family() {
  return {.name = "qwen2_moe",
          .model_types = {"qwen2_moe"},
          .gguf_architectures = {"qwen2moe"},
          .read = qwen2_moe,
          .write = write_qwen2_moe};
}

Family qwen3_moe_family() {
  return {.name = "qwen3_moe",
          .model_types = {"qwen3_moe"},
          .gguf_architectures = {"qwen3moe"},
          .read = qwen3_moe,
          .write = write_qwen3_moe};
}

}  // namespace qlora::model
