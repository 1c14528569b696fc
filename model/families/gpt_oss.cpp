// gpt-oss (OpenAI 2025): experts with biases and a clamped gate, a window in every other layer, and
// for each head a sink, a learned logit that takes probability and gives nothing.
#include "model/families/expert_like.h"
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"
#include "model/file_facts.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  return {.num_kv_heads = 8,
          .head_dim = 64,
          .vocab_size = 201088,
          .hidden_size = 2880,
          .intermediate_size = 2880,
          .num_layers = 36,
          .num_heads = 64,
          .norm_eps = 1e-5,
          .rope = {.theta = 150000,
                   .when_absent =
                       R"({"rope_type": "yarn", "rope_theta": 150000, "factor": 32,
                           "original_max_position_embeddings": 4096, "beta_fast": 32,
                           "beta_slow": 1, "truncate": false})"},
          .attention_bias = true,
          .max_positions = 131072,
          .norm_eps_key = {{"rms_norm_eps"}, "attention.layer_norm_rms_epsilon", true}};
}

ExpertsSpec experts(ConfigReader& config, const LlamaSizes& sizes) {
  ExpertsSpec spec =
      experts_of(sizes, read_expert_sizes(config, sizes, {.experts = 128, .active = 4}));
  spec.activation = {.kind = Activation::kClampedSilu,
                     .limit = config.positive({{"swiglu_limit"}}, 7.0),
                     .alpha = config.number({{"swiglu_alpha"}}, 1.702)};
  spec.router.names.hugging_face = "mlp.router";
  spec.router.bias = spec.gate_up.bias = spec.down.bias = true;
  spec.router.needs_bias = true;
  spec.files = {.gate = "",
                .up = "",
                .down = "",
                .stacked_gate_up = "mlp.experts.gate_up_proj",
                .stacked_down = "mlp.experts.down_proj",
                .stacked_by_inputs = true};
  return spec;
}

Architecture gpt_oss(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  config.note_read({"experts_per_token", "initial_context_length"},
                   {"rope.scaling.yarn_ext_factor"});
  Architecture a = llama_like("gpt_oss", sizes);
  BlockSpec& block = a.decoder.kinds[0];
  AttentionSpec& attention = block.attention();
  attention.shape.sinks = true;
  attention.sinks = {"self_attn.sinks", "attn_sinks.weight"};
  block.mlp_branch().before.names.gguf = "post_attention_norm";
  const auto every_other = layers_where(a.num_layers(), [](int64_t i) { return i % 2 == 0; });
  const auto slides = read_layer_types(config, a.num_layers()).value_or(every_other);
  give_windows(a, read_window(config, 128, slides), slides);
  use_experts(a, experts(config, sizes));
  if (a.rotaries.front().rope.type == "yarn" && config.gguf())
    a.rotaries.front().rope.truncate = false;
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  const ActivationRule& activation = first_experts(a)->activation;
  config.model("gpt_oss", "GptOssForCausalLM");
  write_llama_sizes(config, a, defaults());
  write_expert_counts(config, a, "num_local_experts");
  config.number("swiglu_limit", activation.limit);
  config.number("swiglu_alpha", activation.alpha);
  write_window(config, a);
  write_layer_types(config, a);
}

}  // namespace

Family gpt_oss_family() {
  return {.name = "gpt_oss",
          .model_types = {"gpt_oss"},
          .gguf_architectures = {"gpt-oss"},
          .read = gpt_oss,
          .write = write};
}

}  // namespace qlora::model
