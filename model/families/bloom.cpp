// BLOOM (Le Scao et al. 2022): ALiBi, a LayerNorm of the embeddings, queries, keys and values of
// each head in one matrix.
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"

namespace qlora::model {
namespace {

Architecture bloom(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(
      config, {.vocab_size = 250880,
               .hidden_size = 64,
               .intermediate_size = 0,
               .num_layers = 2,
               .num_heads = 8,
               .norm_eps = 1e-5,
               .tied_embeddings = true,
               .activation = "gelu_new",
               .activation_key = {},
               .norm_eps_key = layer_norm_eps("layer_norm_epsilon"),
               .rotates = false,
               .keys = {.hidden = {{"n_embed", "hidden_size"}, "embedding_length", true},
                        .inner = {{}, "feed_forward_length"},
                        .layers = {{"n_layer", "num_hidden_layers"}, "block_count", true},
                        .heads = {{"n_head", "num_attention_heads"}, "attention.head_count", true},
                        .kv_heads = {{}, "attention.head_count_kv"},
                        .head_dim = {},
                        .positions = {{"seq_length"}, "context_length"}}});
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

}  // namespace

Family bloom_family() {
  return {
      .name = "bloom", .model_types = {"bloom"}, .gguf_architectures = {"bloom"}, .read = bloom};
}

}  // namespace qlora::model
