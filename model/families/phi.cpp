// Phi 1, 1.5 and 2 (Gunasekar et al. 2023; Li et al. 2023): one LayerNorm for attention and MLP
// side by side, biases everywhere, half of each head rotated.
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  return {.norm_eps = 1e-5,
          .rope = {.partial_factor = 0.5},
          .attention_bias_key = "",
          .max_positions = 2048,
          .activation = "gelu_new",
          .norm_eps_key = layer_norm_eps("layer_norm_eps")};
}

Architecture phi(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  config.note_dropout({"embd_pdrop", "resid_pdrop"});
  Architecture a = llama_like("phi", sizes);
  use_layer_norms(a);
  set_attention_bias(a, true, true);
  use_plain_mlp(a, {"mlp.fc1", "ffn_up"}, {"mlp.fc2", "ffn_down"}, true);
  put_side_by_side(a, true);
  AttentionSpec& attention = a.decoder.kinds[0].attention();
  attention.out.names.hugging_face = "self_attn.dense";
  if (config.boolean({{"qk_layernorm"}}, false)) {
    attention.q_norm = head_norm("self_attn.q_layernorm", "", sizes);
    attention.k_norm = head_norm("self_attn.k_layernorm", "", sizes);
    for (NormSpec* norm : {&attention.q_norm, &attention.k_norm}) {
      norm->rule.kind = NormKind::kLayer;
      norm->bias = true;
    }
  }
  a.decoder.final_norm.names.hugging_face = "model.final_layernorm";
  a.head.bias = true;
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("phi", "PhiForCausalLM");
  write_llama_sizes(config, a, defaults());
}

}  // namespace

Family phi_family() {
  return {.name = "phi",
          .model_types = {"phi"},
          .gguf_architectures = {"phi2"},
          .read = phi,
          .write = write};
}

}  // namespace qlora::model
