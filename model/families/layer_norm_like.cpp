#include "model/families/layer_norm_like.h"

namespace qlora::model {

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

bool has_head_norms(ConfigReader& config, const char* key) {
  if (config.gguf()) return config.gguf()->find("blk.0.attn_q_norm.weight") != nullptr;
  return config.boolean({{key}}, false);
}

ConfigKey layer_norm_eps(const char* hugging_face) {
  return {{hugging_face}, "attention.layer_norm_epsilon", true};
}

}  // namespace qlora::model
