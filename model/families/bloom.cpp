// BLOOM (Le Scao et al. 2022): ALiBi, a LayerNorm of the embeddings, queries, keys and values of
// each head in one matrix.
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  LlamaDefaults d = gpt_defaults();
  d.vocab_size = 250880;
  d.hidden_size = 64;
  d.num_layers = 2;
  d.num_heads = 8;
  d.activation_key = {};
  d.keys.hidden.hugging_face = {"n_embed", "hidden_size"};
  d.keys.inner = {{}, "feed_forward_length"};
  d.keys.layers.hugging_face = {"n_layer", "num_hidden_layers"};
  d.keys.heads.hugging_face = {"n_head", "num_attention_heads"};
  d.keys.positions.hugging_face = {"seq_length"};
  return d;
}

Architecture bloom(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  config.note_dropout({"hidden_dropout"});
  config.note_read({"attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion",
                    "offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "slow_but_exact",
                    "unk_token_id", "n_inner", "hidden_size"});
  Architecture a = llama_like("bloom", sizes);
  use_layer_norms(a);
  set_attention_bias(a, true, true);
  fuse_qkv_in_groups(a, {"self_attention.query_key_value", "attn_qkv"});
  use_plain_mlp(a, {"mlp.dense_h_to_4h", "ffn_up"}, {"mlp.dense_4h_to_h", "ffn_down"}, true);
  name_modules(a, {"transformer.", "word_embeddings", "h.", "input_layernorm",
                   "post_attention_layernorm", "self_attention.dense", "ln_f"});
  use_alibi(a, {.slopes = alibi_slopes(sizes.num_heads)});
  a.embedding.norm = a.decoder.final_norm;
  a.embedding.norm.names = {"transformer.word_embeddings_layernorm", "token_embd_norm"};
  if (config.boolean({{"apply_residual_connection_post_layernorm"}}, false))
    for (Branch& branch : a.decoder.kinds[0].branches) branch.onto_normed = true;
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  LlamaDefaults spelled = defaults();
  spelled.keys.hidden.hugging_face = {"hidden_size"};
  config.model("bloom", "BloomForCausalLM");
  write_llama_sizes(config, a, spelled);
  config.flag("apply_residual_connection_post_layernorm", a.block(0).branches.front().onto_normed);
}

}  // namespace

Family bloom_family() {
  return {.name = "bloom",
          .model_types = {"bloom"},
          .gguf_architectures = {"bloom"},
          .read = bloom,
          .write = write};
}

}  // namespace qlora::model
