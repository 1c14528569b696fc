#include "model/families/llama_config.h"

#include <cmath>

#include "model/file_facts.h"

namespace qlora::model {
namespace {

// The part of a head that turns, such that head_dim times it is no less than `width`.
double rotated_part(int64_t width, int64_t head_dim) {
  const auto whole = static_cast<double>(head_dim);
  const double part = static_cast<double>(width) / whole;
  return static_cast<int64_t>(whole * part) < width ? std::nextafter(part, 1.0) : part;
}

void write_rope(ConfigWriter& config, const Architecture& a, const LlamaDefaults& defaults) {
  if (!defaults.rotates || a.rotaries.empty()) return;
  const RotarySpec& rotary = a.rotaries.front();
  const RopeDefaults& rope = defaults.rope;
  config.number(rope.theta_key, rotary.rope.theta);
  if (rotary.rope.type == "default" && rope.when_absent.empty())
    config.null("rope_scaling");
  else
    config.object("rope_scaling", rope_dictionary(rotary.rope));
  const double part = rotated_part(rotary.width, a.block(0).attention().shape.head_dim);
  if (part != 1 || rope.partial_factor != 1) config.number(rope.partial_key, part);
}

// Where a family has keys for them. Few have one for the MLP's, which are none without it.
void write_biases(ConfigWriter& config, const Architecture& a) {
  for (const Branch& branch : a.block(0).branches) {
    if (const AttentionSpec* attention = branch.attention()) {
      for (const LinearSpec& linear : attention->in)
        if (!linear.bias_key.empty()) config.flag(linear.bias_key, linear.bias);
      if (const LinearSpec& out = attention->out; !out.bias_key.empty())
        config.flag(out.bias_key, out.bias);
    } else if (const MlpSpec* mlp = branch.mlp()) {
      if (mlp->out.bias && !mlp->out.bias_key.empty()) config.flag(mlp->out.bias_key, true);
    }
  }
}

}  // namespace

void write_llama_sizes(ConfigWriter& config, const Architecture& a, const LlamaDefaults& defaults) {
  const SizeKeys& keys = defaults.keys;
  const AttentionShape& attention = a.block(0).attention().shape;
  const auto size = [&config](const ConfigKey& key, int64_t value) {
    if (!key.hugging_face.empty()) config.integer(key.hugging_face.front(), value);
  };
  config.integer("vocab_size", a.vocab_size);
  size(keys.hidden, a.hidden_size);
  size(keys.inner, inner_size(a));
  size(keys.layers, a.num_layers());
  size(keys.heads, attention.heads);
  size(keys.kv_heads, attention.kv_heads);
  size(keys.head_dim, attention.head_dim);
  size(keys.positions, a.max_positions);
  if (const ConfigKey& key = defaults.activation_key; !key.hugging_face.empty())
    config.text(key.hugging_face.front(), defaults.activation);
  if (const ConfigKey& key = defaults.norm_eps_key; !key.hugging_face.empty())
    config.number(key.hugging_face.front(), a.decoder.final_norm.rule.eps);
  write_rope(config, a, defaults);
  write_biases(config, a);
  config.flag("tie_word_embeddings", a.tied_embeddings);
}

void write_window(ConfigWriter& config, const Architecture& a) {
  config.integer_or_null("sliding_window", smallest_window(a));
}

void write_layer_types(ConfigWriter& config, const Architecture& a) {
  std::vector<std::string> types;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    types.emplace_back(a.block(layer).attention().shape.window > 0 ? "sliding_attention"
                                                                   : "full_attention");
  config.texts("layer_types", types);
}

void write_expert_counts(ConfigWriter& config, const Architecture& a, const char* count_key) {
  const RoutingRule& routing = first_experts(a)->routing;
  config.integer(count_key, routing.experts);
  config.integer("num_experts_per_tok", routing.active);
}

void write_query_scalar(ConfigWriter& config, const Architecture& a) {
  const double scale = a.block(0).attention().shape.scale;
  const double scalar = 1 / (scale * scale), whole = std::round(scalar);
  if (std::abs(scalar - whole) < 1e-5 * scalar)
    config.integer("query_pre_attn_scalar", static_cast<int64_t>(whole));
  else
    config.number("query_pre_attn_scalar", scalar);
}

}  // namespace qlora::model
