// GLM-4 (GLM team 2024): Llama's block with pairs of half of each head rotated, gate and up from
// one matrix; its 0414 release (glm4) norms what each branch gives, too.
#include "model/families/families.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  return {.num_kv_heads = 2,
          .head_dim = 128,
          .norm_eps = 1.5625e-7,
          .rope = {.partial_factor = 0.5, .pairs = true},
          .attention_bias = true,
          .max_positions = 131072};
}

Architecture glm_like(const std::string& family, ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  Architecture a = llama_like(family, sizes);
  a.decoder.kinds[0].attention().out.bias = false;  // in spite of attention_bias
  a.decoder.kinds[0].attention().out.bias_key.clear();
  fuse_gate_up(a, {"mlp.gate_up_proj", "ffn_up"});
  return a;
}

Architecture glm(ConfigReader& config) { return glm_like("glm", config); }

Architecture glm4(ConfigReader& config) {
  Architecture a = glm_like("glm4", config);
  BlockSpec& block = a.decoder.kinds[0];
  Branch &attention = block.attention_branch(), &mlp = block.mlp_branch();
  attention.after = attention.before;
  attention.after.names = {"post_self_attn_layernorm", "post_attention_norm"};
  mlp.after = mlp.before;
  mlp.after.names = {"post_mlp_layernorm", "post_ffw_norm"};
  return a;
}

void write_glm(ConfigWriter& config, const Architecture& a) {
  config.model("glm", "GlmForCausalLM");
  write_llama_sizes(config, a, defaults());
}

void write_glm4(ConfigWriter& config, const Architecture& a) {
  config.model("glm4", "Glm4ForCausalLM");
  write_llama_sizes(config, a, defaults());
}

}  // namespace

Family glm_family() {
  return {.name = "glm",
          .model_types = {"glm"},
          .gguf_architectures = {"chatglm"},
          .read = glm,
          .write = write_glm};
}

Family glm4_family() {
  return {.name = "glm4",
          .model_types = {"glm4"},
          .gguf_architectures = {"glm4"},
          .read = glm4,
          .write = write_glm4};
}

}  // namespace qlora::model
