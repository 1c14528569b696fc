// StableLM 2 (Bellagente et al. 2024): Llama's block with LayerNorms and a quarter of each head
// rotated; attention and MLP may stand side by side.
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

// LayerNorm without a bias, of each head by a weight of its own.
NormSpec norm_of_heads(const char* hugging_face, const char* gguf, int64_t heads,
                       const LlamaSizes& sizes) {
  NormSpec spec = head_norm(hugging_face, gguf, sizes);
  spec.rule.kind = NormKind::kLayer;
  spec.groups = heads;
  spec.by_group = true;
  return spec;
}

LlamaDefaults defaults() {
  return {.num_kv_heads = 32,
          .norm_eps = 1e-5,
          .rope = {.partial_factor = 0.25},
          .attention_bias_key = "",
          .max_positions = 4096,
          .norm_eps_key = layer_norm_eps("layer_norm_eps")};
}

Architecture stablelm(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  config.note_dropout({"hidden_dropout"});
  // Released files say the rotated part twice; transformers does not read this one.
  if (const auto part = config.node({{"rope_pct"}});
      part && static_cast<int64_t>(part->as_number() * static_cast<double>(sizes.head_dim)) !=
                  sizes.rotary.width)
    part->reject("what partial_rotary_factor is, which is 0.25 where it is absent");
  config.note_read({"num_heads"});
  config.require("rotary_scaling_factor", 1.0);
  const ConfigKey parallel{{"use_parallel_residual"}, "use_parallel_residual"};
  Architecture a = llama_like("stablelm", sizes);
  use_layer_norms(a);
  set_attention_bias(a, config.boolean({{"use_qkv_bias"}}, false), false);
  if (config.boolean(parallel, false)) put_side_by_side(a, true);
  AttentionSpec& attention = a.decoder.kinds[0].attention();
  if (has_head_norms(config, "qk_layernorm")) {
    attention.q_norm =
        norm_of_heads("self_attn.q_layernorm", "attn_q_norm", attention.shape.heads, sizes);
    attention.k_norm =
        norm_of_heads("self_attn.k_layernorm", "attn_k_norm", attention.shape.kv_heads, sizes);
  }
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  const AttentionSpec& attention = a.block(0).attention();
  config.model("stablelm", "StableLmForCausalLM");
  write_llama_sizes(config, a, defaults());
  config.flag("use_qkv_bias", attention.in.front().bias);
  config.flag("qk_layernorm", attention.q_norm.present());
  config.flag("use_parallel_residual", a.block(0).branches.at(1).beside);
}

}  // namespace

Family stablelm_family() {
  return {.name = "stablelm",
          .model_types = {"stablelm"},
          .gguf_architectures = {"stablelm"},
          .read = stablelm,
          .write = write};
}

}  // namespace qlora::model
