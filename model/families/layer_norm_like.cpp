#include "model/families/layer_norm_like.h"

namespace qlora::model {

LlamaDefaults gpt_defaults() {
  return {.intermediate_size = 0,
          .norm_eps = 1e-5,
          .tied_embeddings = true,
          .attention_bias_key = "",
          .activation = "gelu_new",
          .activation_key = {{"activation_function"}},
          .norm_eps_key = layer_norm_eps("layer_norm_epsilon"),
          .rotates = false,
          .keys = {.kv_heads = {{}, "attention.head_count_kv"}, .head_dim = {}}};
}

SizeKeys gpt2_size_keys() {
  return {.hidden = {{"n_embd", "hidden_size"}, "embedding_length", true},
          .inner = {{"n_inner"}, "feed_forward_length"},
          .layers = {{"n_layer", "num_hidden_layers"}, "block_count", true},
          .heads = {{"n_head", "num_attention_heads"}, "attention.head_count", true},
          .kv_heads = {{}, "attention.head_count_kv"},
          .head_dim = {},
          .positions = {{"n_positions", "max_position_embeddings"}, "context_length"}};
}

void note_summary_keys(ConfigReader& config) {
  config.note_read({"summary_activation", "summary_first_dropout", "summary_proj_to_labels",
                    "summary_type", "summary_use_proj"});
}

void name_queries_keys_values(Architecture& architecture, const std::string& prefix) {
  constexpr const char* kNames[] = {"q_proj", "k_proj", "v_proj"};
  std::vector<LinearSpec>& in = architecture.decoder.kinds[0].attention().in;
  for (size_t i = 0; i < in.size(); ++i) in[i].names.hugging_face = prefix + kNames[i];
}

void use_layer_norms(Architecture& architecture, bool bias) {
  const auto change = [bias](NormSpec& norm) {
    norm.rule.kind = NormKind::kLayer;
    norm.bias = bias;
  };
  for (BlockSpec& block : architecture.decoder.kinds)
    for (Branch& branch : block.branches) change(branch.before);
  change(architecture.decoder.final_norm);
}

void use_plain_mlp(Architecture& architecture, const TensorNames& up, const TensorNames& down,
                   bool bias) {
  for (BlockSpec& block : architecture.decoder.kinds) {
    MlpSpec& mlp = block.mlp();
    mlp.gated = false;
    mlp.in.resize(1);
    mlp.in[0].names = up;
    mlp.out.names = down;
    for (LinearSpec* linear : {&mlp.in[0], &mlp.out}) {
      linear->bias = bias;
      linear->bias_key.clear();
    }
  }
}

void put_side_by_side(Architecture& architecture, bool same_norm) {
  for (BlockSpec& block : architecture.decoder.kinds) {
    Branch& mlp = block.mlp_branch();
    mlp.beside = true;
    mlp.same_norm = same_norm;
    if (same_norm) mlp.before = block.attention_branch().before;
  }
}

void set_attention_bias(Architecture& architecture, bool qkv, bool out) {
  for (BlockSpec& block : architecture.decoder.kinds) {
    AttentionSpec& attention = block.attention();
    for (LinearSpec& linear : attention.in) {
      linear.bias = qkv;
      linear.bias_key.clear();
    }
    attention.out.bias = out;
    attention.out.bias_key.clear();
  }
}

void fuse_qkv_in_groups(Architecture& architecture, const TensorNames& names) {
  fuse_qkv(architecture, names);
  AttentionSpec& a = architecture.decoder.kinds[0].attention();
  a.shape.layout = heads_in_groups(a.shape.heads, a.shape.kv_heads, a.shape.head_dim);
  a.in[0].gguf_rows = RowOrder::kQueriesThenKeys;
}

void leave_unrotated(Architecture& architecture) {
  for (BlockSpec& block : architecture.decoder.kinds) block.attention().rotary = kNotRotated;
  architecture.rotaries.clear();
}

void use_alibi(Architecture& architecture, AlibiSpec alibi) {
  leave_unrotated(architecture);
  for (BlockSpec& block : architecture.decoder.kinds) block.attention().shape.position_bias = true;
  architecture.alibi = std::move(alibi);
}

void name_modules(Architecture& architecture, const GptNames& names) {
  architecture.embedding.names.hugging_face = names.base + names.embedding;
  architecture.decoder.prefix.hugging_face = names.base + names.layers;
  architecture.decoder.final_norm.names.hugging_face = names.base + names.last_norm;
  for (BlockSpec& block : architecture.decoder.kinds) {
    block.attention_branch().before.names.hugging_face = names.attention_norm;
    block.mlp_branch().before.names.hugging_face = names.mlp_norm;
    block.attention().out.names.hugging_face = names.out;
  }
}

bool has_head_norms(ConfigReader& config, const char* key) {
  if (config.gguf()) return config.gguf()->find("blk.0.attn_q_norm.weight") != nullptr;
  return config.boolean({{key}}, false);
}

ConfigKey layer_norm_eps(const char* hugging_face) {
  return {{hugging_face}, "attention.layer_norm_epsilon", true};
}

}  // namespace qlora::model
