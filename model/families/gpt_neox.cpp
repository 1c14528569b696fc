// GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023): attention and MLP side by side,
// each behind a LayerNorm of its own; queries, keys and values of each head in one matrix.
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  return {
      .vocab_size = 50432,
      .hidden_size = 6144,
      .intermediate_size = 24576,
      .num_layers = 44,
      .num_heads = 64,
      .norm_eps = 1e-5,
      .rope = {.partial_factor = 0.25, .theta_key = "rotary_emb_base", .partial_key = "rotary_pct"},
      .attention_bias = true,
      .activation = "gelu",
      .norm_eps_key = layer_norm_eps("layer_norm_eps"),
      .keys = {.kv_heads = {{}, "attention.head_count_kv"}, .head_dim = {}}};
}

Architecture gpt_neox(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  config.note_dropout({"hidden_dropout"});
  config.note_read({"rotary_emb_base", "rotary_pct", "classifier_dropout"});
  Architecture a = llama_like("gpt_neox", sizes);
  use_layer_norms(a);
  fuse_qkv_in_groups(a, {"attention.query_key_value", "attn_qkv"});
  use_plain_mlp(a, {"mlp.dense_h_to_4h", "ffn_up"}, {"mlp.dense_4h_to_h", "ffn_down"}, true);
  name_modules(a, {"gpt_neox.", "embed_in", "layers.", "input_layernorm",
                   "post_attention_layernorm", "attention.dense", "final_layer_norm"});
  a.file_names = {{a.head.names.hugging_face, "embed_out"}};
  if (config.boolean({{"use_parallel_residual"}, "use_parallel_residual"}, true))
    put_side_by_side(a, false);
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("gpt_neox", "GPTNeoXForCausalLM");
  write_llama_sizes(config, a, defaults());
  config.flag("use_parallel_residual", a.block(0).branches.at(1).beside);
}

}  // namespace

Family gpt_neox_family() {
  return {.name = "gpt_neox",
          .model_types = {"gpt_neox"},
          .gguf_architectures = {"gptneox"},
          .read = gpt_neox,
          .write = write};
}

}  // namespace qlora::model
