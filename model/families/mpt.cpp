// MPT (MosaicML 2023): ALiBi, LayerNorms without biases, no biases at all.
#include <string_view>

#include "base/error.h"
#include "base/warn_once.h"
#include "io/known_keys.h"
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  LlamaDefaults d = gpt_defaults();
  d.vocab_size = 50368;
  d.hidden_size = 2048;
  d.num_layers = 24;
  d.num_heads = 16;
  d.activation = "gelu";
  d.activation_key = {};
  d.keys.hidden.hugging_face = {"d_model", "hidden_size"};
  d.keys.inner = {{}, "feed_forward_length"};
  d.keys.layers.hugging_face = {"n_layers", "num_hidden_layers"};
  d.keys.heads.hugging_face = {"n_heads", "num_attention_heads"};
  d.keys.positions.hugging_face = {"max_seq_len"};
  return d;
}

// What transformers ignores is refused where it would make another model of MosaicML's own program.
void refuse_other_attention(const io::JsonNode& node, int64_t num_heads) {
  const auto differs = [&](const char* key, bool otherwise) {
    return node.bool_or(key, otherwise) != otherwise;
  };
  if (differs("alibi", true))
    node.at("alibi").reject("true: MPT models without ALiBi are not supported");
  if (differs("qk_ln", false))
    node.at("qk_ln").reject("false: norms of queries and keys are not supported");
  if (differs("prefix_lm", false))
    node.at("prefix_lm").reject("false: attention is causal from the first token on");
  if (const auto type = node.find("attn_type"); type && type->as_string() != "multihead_attention")
    type->reject("multihead_attention: queries that share keys are not supported");
  if (const auto most = node.find("alibi_bias_max"); most && most->as_number() != 8)
    most->reject("8");
  if (const auto heads = node.find("kv_n_heads");
      heads && heads->as_integer(1, 1 << 16) != num_heads)
    heads->reject("absent: queries that share keys are not supported");
}

void warn_of_unread(const io::JsonNode& node) {
  if (const auto dropout = node.find("attn_pdrop"); dropout && dropout->as_number() != 0)
    log::warning_once("{} is {}; attention is trained without dropout here", dropout->place(),
                      dropout->as_number());
  constexpr std::string_view kKnown[] = {"alibi",      "alibi_bias_max", "attn_impl",
                                         "attn_pdrop", "attn_type",      "attn_uses_sequence_id",
                                         "clip_qkv",   "kv_n_heads",     "model_type",
                                         "prefix_lm",  "qk_ln",          "softmax_scale"};
  io::warn_of_other_keys(node, {kKnown});
}

// attn_config of config.json, or the metadata of a GGUF file.
void read_attention(ConfigReader& config, AttentionSpec& attention) {
  attention.clamp = config.positive_or_none({{}, "attention.clamp_kqv"});
  const ConfigKey largest{{}, "attention.max_alibi_bias"};  // 0: learned positions
  if (const double bias = config.number(largest, 8); bias != 8)
    fail<FormatError>("{} is {}; MPT models are supported with ALiBi's 8 alone",
                      config.place_of(largest), bias);
  const auto node = config.node({{"attn_config"}});
  if (!node) return;
  ConfigReader keys(*node);
  const ConfigKey clip{{"clip_qkv"}};
  if (keys.number(clip, 0) != 0) attention.clamp = keys.positive(clip, 0);  // 0 is none, too
  attention.shape.scale =
      static_cast<float>(keys.positive({{"softmax_scale"}}, attention.shape.scale));
  refuse_other_attention(*node, attention.shape.heads);
  warn_of_unread(*node);
}

Architecture mpt(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  config.note_dropout({"resid_pdrop", "emb_pdrop"});
  config.note_read({"learned_pos_emb", "init_device", "embedding_fraction", "expansion_ratio",
                    "verbose", "fc_type", "init_config"});
  config.require("no_bias", true);
  config.require("norm_type", {"low_precision_layernorm", "layernorm"});
  if (const auto ffn = config.node({{"ffn_config"}}))
    if (const std::string type = ffn->string_or("ffn_type", "mptmlp"); type != "mptmlp")
      ffn->at("ffn_type").reject("mptmlp: other MLPs are not supported");
  if (const auto scale = config.node({{"logit_scale"}}))
    scale->reject("null: scaled logits are not supported");
  Architecture a = llama_like("mpt", sizes);
  use_layer_norms(a, false);
  set_attention_bias(a, false, false);
  fuse_qkv(a, {"attn.Wqkv", "attn_qkv"});
  use_plain_mlp(a, {"ffn.up_proj", "ffn_up"}, {"ffn.down_proj", "ffn_down"}, false);
  name_modules(a,
               {"transformer.", "wte", "blocks.", "norm_1", "norm_2", "attn.out_proj", "norm_f"});
  use_alibi(a, {.slopes = alibi_slopes(sizes.num_heads)});
  read_attention(config, a.decoder.kinds[0].attention());
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("mpt", "MptForCausalLM");
  write_llama_sizes(config, a, defaults());
  ConfigWriter attention;
  attention.flag("alibi", true);
  if (const double clamp = a.block(0).attention().clamp; clamp != 0)
    attention.number("clip_qkv", clamp);
  config.object("attn_config", attention);
}

}  // namespace

Family mpt_family() {
  return {.name = "mpt",
          .model_types = {"mpt"},
          .gguf_architectures = {"mpt"},
          .read = mpt,
          .write = write};
}

}  // namespace qlora::model
