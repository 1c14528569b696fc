// Mixtral (Jiang et al. 2024): Mistral's block with experts.
#include "model/families/expert_like.h"
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"

namespace qlora::model {

Architecture read_mixtral(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, {.num_kv_heads = 8,
                                                     .intermediate_size = 14336,
                                                     .norm_eps = 1e-5,
                                                     .rope = {.theta = 1e6},
                                                     .attention_bias_key = "",
                                                     .max_positions = 131072});
  Architecture a = llama_like("mixtral", sizes);
  ExpertsSpec experts =
      experts_of(sizes, read_expert_sizes(config, sizes, {.weights_in_fp32 = true}));
  experts.files.gate = "mlp.experts.{}.w1";
  experts.files.up = "mlp.experts.{}.w3";
  experts.files.down = "mlp.experts.{}.w2";
  give_windows(a, read_window(config, 0), std::vector<bool>(a.num_layers(), true));
  if (config.gguf()) keep_rotary_pairs(a);
  use_experts(a, experts);
  a.file_names = {{"mlp", "block_sparse_moe"}};
  a.targets_mean_experts = true;
  return a;
}

namespace {

void write(ConfigWriter& config, const Architecture& a) {
  config.model("mixtral", "MixtralForCausalLM");
  write_llama_sizes(config, a);
  write_expert_counts(config, a, "num_local_experts");
  write_window(config, a);
}

}  // namespace

Family mixtral_family() {
  return {.name = "mixtral",
          .model_types = {"mixtral"},
          .read = read_mixtral,
          .write = write,
          .gguf_written_as = "llama"};
}

}  // namespace qlora::model
