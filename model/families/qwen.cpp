// Qwen 2, 2.5 and 3 (Yang et al. 2024, 2025): Llama's block with biases of queries, keys and
// values, or with norms of each head's queries and keys.
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

// Layers from max_window_layers on slide, if use_sliding_window says so.
void read_windows(ConfigReader& config, Architecture& a) {
  const int64_t window = read_used_window(config, 4096);
  const int64_t first = config.integer({{"max_window_layers"}}, 28);
  const auto types = read_layer_types(config, a.num_layers());
  const auto by_index =
      layers_where(a.num_layers(), [first](int64_t layer) { return layer >= first; });
  give_windows(a, window, types.value_or(by_index));
}

Architecture qwen2(ConfigReader& config) {
  Architecture a = llama_like(
      "qwen2", read_llama_sizes(
                   config, {.num_kv_heads = 32, .attention_bias_key = "", .max_positions = 32768}));
  config.require("use_mrope", false);
  for (LinearSpec& linear : a.decoder.kinds[0].attention().in) linear.bias = true;
  read_windows(config, a);
  return a;
}

Architecture qwen3(ConfigReader& config) {
  const LlamaSizes sizes =
      read_llama_sizes(config, {.num_kv_heads = 32, .head_dim = 128, .max_positions = 32768});
  Architecture a = llama_like("qwen3", sizes);
  AttentionSpec& attention = a.decoder.kinds[0].attention();
  attention.q_norm = head_norm("self_attn.q_norm", "attn_q_norm", sizes);
  attention.k_norm = head_norm("self_attn.k_norm", "attn_k_norm", sizes);
  read_windows(config, a);
  return a;
}

void write_qwen2(ConfigWriter& config, const Architecture& a) {
  config.model("qwen2", "Qwen2ForCausalLM");
  write_llama_sizes(config, a);
}

void write_qwen3(ConfigWriter& config, const Architecture& a) {
  config.model("qwen3", "Qwen3ForCausalLM");
  write_llama_sizes(config, a);
}

}  // namespace

Family qwen2_family() {
  return {.name = "qwen2",
          .model_types = {"qwen2"},
          .gguf_architectures = {"qwen2"},
          .read = qwen2,
          .write = write_qwen2};
}

Family qwen3_family() {
  return {.name = "qwen3",
          .model_types = {"qwen3"},
          .gguf_architectures = {"qwen3"},
          .read = qwen3,
          .write = write_qwen3};
}

}  // namespace qlora::model
