// Falcon (Almazrouei et al. 2023), four models under one name:
//
//   7B        one norm for attention and MLP side by side; all queries share one key head
//   40B, 180B a norm for each of the two, groups of queries share a key head
//   11B       one norm, groups
//   RW        one after the other, ALiBi, a key head for each query head
#include "base/error.h"
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults(bool alibi) {
  return {.vocab_size = 65024,
          .hidden_size = 4544,
          .intermediate_size = 0,
          .num_layers = 32,
          .num_heads = 71,
          .norm_eps = 1e-5,
          .tied_embeddings = true,
          .attention_bias_key = "",
          .activation = "gelu",
          .activation_key = {{"activation"}},
          .norm_eps_key = layer_norm_eps("layer_norm_epsilon"),
          .rotates = !alibi,
          .keys = {.hidden = {{"n_embed", "hidden_size"}, "embedding_length", true},
                   .inner = {{"ffn_hidden_size"}, "feed_forward_length"},
                   .kv_heads = {{"num_kv_heads"}, "attention.head_count_kv"},
                   .head_dim = {}}};
}

enum class Placement { kInTurn, kOneNorm, kTwoNorms };

Placement placement_of(ConfigReader& config, bool grouped) {
  if (config.gguf())
    return config.gguf()->find("blk.0.attn_norm_2.weight") ? Placement::kTwoNorms
                                                           : Placement::kOneNorm;
  const bool parallel = config.boolean({{"parallel_attn"}}, true);
  if (grouped && !parallel)
    config.node({{"parallel_attn"}})
        ->reject("true: models with new_decoder_architecture have attention and MLP side by side");
  const ConfigKey count{{"num_ln_in_parallel_attn"}};
  const int64_t norms = config.integer(count, grouped ? 2 : 1);
  const int64_t most = grouped ? 2 : 1;
  if (norms < 1 || norms > most)
    fail<FormatError>("{} must be between 1 and {} in this model, found {}", config.place_of(count),
                      most, norms);
  if (grouped) return norms == 2 ? Placement::kTwoNorms : Placement::kOneNorm;
  return parallel ? Placement::kOneNorm : Placement::kInTurn;
}

Architecture falcon(ConfigReader& config) {
  const bool alibi = config.boolean({{"alibi"}}, false);
  const bool grouped = config.boolean({{"new_decoder_architecture"}}, false);
  const bool shares_one = config.boolean({{"multi_query"}}, true);
  LlamaSizes sizes = read_llama_sizes(config, defaults(alibi));
  if (config.json() && !grouped) sizes.num_kv_heads = shares_one ? 1 : sizes.num_heads;
  config.note_dropout({"hidden_dropout"});
  config.require("apply_residual_connection_post_layernorm", false);
  config.note_read(
      {"hidden_size", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters"});
  const bool bias = config.boolean({{"bias"}}, false);
  Architecture a = llama_like("falcon", sizes);
  use_layer_norms(a);
  set_attention_bias(a, bias, bias);
  fuse_qkv_in_groups(a, {"self_attention.query_key_value", "attn_qkv"});
  use_plain_mlp(a, {"mlp.dense_h_to_4h", "ffn_up"}, {"mlp.dense_4h_to_h", "ffn_down"}, bias);
  const Placement placement = placement_of(config, grouped);
  const bool two = placement == Placement::kTwoNorms;
  name_modules(a, {"transformer.", "word_embeddings", "h.", two ? "ln_attn" : "input_layernorm",
                   two ? "ln_mlp" : "post_attention_layernorm", "self_attention.dense", "ln_f"});
  if (two) {
    a.decoder.kinds[0].attention_branch().before.names.gguf = "attn_norm_2";
    a.decoder.kinds[0].mlp_branch().before.names.gguf = "attn_norm";
  }
  if (placement != Placement::kInTurn) put_side_by_side(a, !two);
  if (alibi)
    use_alibi(a, {.slopes = alibi_slopes(sizes.num_heads),
                  .scale = inverse_root(sizes.head_dim),
                  .rounds_to_bfloat16 = true});
  return a;
}

// Of those that GGUF files hold: all but RW.
void write(ConfigWriter& config, const Architecture& a) {
  LlamaDefaults spelled = defaults(false);
  spelled.keys.hidden.hugging_face = {"hidden_size"};
  config.model("falcon", "FalconForCausalLM");
  write_llama_sizes(config, a, spelled);
  const AttentionSpec& attention = a.block(0).attention();
  const bool two_norms = !a.block(0).branches.at(1).same_norm;
  const bool grouped = two_norms || attention.shape.kv_heads > 1;
  config.flag("new_decoder_architecture", grouped);
  if (grouped)
    config.integer("num_ln_in_parallel_attn", two_norms ? 2 : 1);
  else
    config.flag("multi_query", true);
  config.flag("parallel_attn", true);
  config.flag("alibi", false);
  config.flag("bias", attention.out.bias);
}

}  // namespace

Family falcon_family() {
  return {.name = "falcon",
          .model_types = {"falcon"},
          .gguf_architectures = {"falcon"},
          .read = falcon,
          .write = write};
}

}  // namespace qlora::model
