// Granite 3 (IBM 2024): Llama's block with a multiplier for the embedding, the scores, what each
// branch adds, and the logits; with an MLP or with experts.
#include "model/families/expert_like.h"
#include "model/families/families.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

Architecture granite_like(const std::string& family, ConfigReader& config,
                          const LlamaSizes& sizes) {
  Architecture a = llama_like(family, sizes);
  keep_rotary_pairs(a);
  BlockSpec& block = a.decoder.kinds[0];
  a.embedding.multiplier = config.positive({{"embedding_multiplier"}, "embedding_scale"}, 1);
  const double residual = config.positive({{"residual_multiplier"}, "residual_scale"}, 1);
  for (Branch& branch : block.branches) branch.multiplier = residual;
  block.attention().shape.scale =
      static_cast<float>(config.positive({{"attention_multiplier"}, "attention.scale"}, 1));
  a.logit_multiplier = 1 / config.positive({{"logits_scaling"}, "logit_scale"}, 1);
  return a;
}

Architecture granite(ConfigReader& config) {
  return granite_like("granite", config, read_llama_sizes(config, {.mlp_bias_key = "mlp_bias"}));
}

Architecture granitemoe(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config);
  ExpertsSpec experts = experts_of(sizes, read_expert_sizes(config, sizes, {}));
  experts.router.names.hugging_face = "block_sparse_moe.router";
  experts.gate_up.names.hugging_face = "block_sparse_moe.experts.{}.gate_up_proj";
  experts.down.names.hugging_face = "block_sparse_moe.experts.{}.down_proj";
  experts.files = {.gate = "",
                   .up = "",
                   .down = "",
                   .stacked_gate_up = "block_sparse_moe.input_linear.weight",
                   .stacked_down = "block_sparse_moe.output_linear.weight"};
  Architecture a = granite_like("granitemoe", config, sizes);
  use_experts(a, experts);
  a.file_names = {{"block_sparse_moe.router", "block_sparse_moe.router.layer"}};
  return a;
}

void write_multipliers(ConfigWriter& config, const Architecture& a) {
  write_llama_sizes(config, a);
  config.number("embedding_multiplier", a.embedding.multiplier);
  config.number("residual_multiplier", a.block(0).branches.front().multiplier);
  config.number("attention_multiplier", a.block(0).attention().shape.scale);
  config.number("logits_scaling", 1 / a.logit_multiplier);
}

void write_granite(ConfigWriter& config, const Architecture& a) {
  config.model("granite", "GraniteForCausalLM");
  write_multipliers(config, a);
}

void write_granitemoe(ConfigWriter& config, const Architecture& a) {
  config.model("granitemoe", "GraniteMoeForCausalLM");
  write_multipliers(config, a);
  write_expert_counts(config, a, "num_local_experts");
}

}  // namespace

Family granite_family() {
  return {.name = "granite",
          .model_types = {"granite"},
          .gguf_architectures = {"granite"},
          .read = granite,
          .write = write_granite};
}

Family granitemoe_family() {
  return {.name = "granitemoe",
          .model_types = {"granitemoe"},
          .gguf_architectures = {"granitemoe"},
          .read = granitemoe,
          .write = write_granitemoe};
}

}  // namespace qlora::model
