#include "model/same_computation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace qlora::model {
namespace {

template <typename T>
bool equal(const T& a, const T& b) {
  if constexpr (std::is_floating_point_v<T>)
    return std::abs(a - b) <= 1e-6 * std::max(std::abs(a), std::abs(b));
  else
    return a == b;
}

template <typename T>
auto shown(const T& value) {
  if constexpr (std::is_enum_v<T>)
    return static_cast<int>(value);
  else
    return value;
}

// Keeps the first one.
class Comparison {
 public:
  template <typename T>
  void same(const char* what, const T& wanted, const T& found) {
    if (text_.empty() && !equal(wanted, found))
      text_ = fmt::format("{}{} is {}, not {}", what, place_, shown(found), shown(wanted));
  }
  void at(std::string place) { place_ = std::move(place); }
  std::string take() { return std::move(text_); }

 private:
  std::string place_, text_;
};

void compare(const NormSpec& wanted, const NormSpec& found, Comparison& c) {
  c.same("the kind of a norm", wanted.rule.kind, found.rule.kind);
  if (!wanted.present()) return;
  c.same("the epsilon of a norm", wanted.rule.eps, found.rule.eps);
  c.same("what is added to a norm's weight", wanted.rule.offset, found.rule.offset);
  c.same("the size of a norm", wanted.size, found.size);
  c.same("the number of a norm's weights", wanted.groups, found.groups);
  c.same("whether a norm has a weight", wanted.weight, found.weight);
  c.same("whether a norm has a bias", wanted.bias, found.bias);
}

void compare(const RotarySpec& wanted, const RotarySpec& found, Comparison& c) {
  const RopeConfig &a = wanted.rope, &b = found.rope;
  c.same("the width of RoPE", wanted.width, found.width);
  c.same("whether RoPE turns pairs", wanted.pairs, found.pairs);
  c.same("RoPE's theta", a.theta, b.theta);
  if (a.type == "llama3" || a.type == "longrope" || !a.divisors.empty()) return;
  c.same("RoPE's scaling", a.type, b.type);
  if (a.type == "default") return;
  c.same("the factor of RoPE's scaling", a.factor, b.factor);
  if (a.type != "yarn") return;
  c.same("yarn's context", a.original_max_positions, b.original_max_positions);
  c.same("yarn's beta_fast", a.beta_fast, b.beta_fast);
  c.same("yarn's beta_slow", a.beta_slow, b.beta_slow);
  c.same("yarn's attention factor", a.attention_factor, b.attention_factor);
  c.same("yarn's truncation", a.truncate, b.truncate);
}

const RotarySpec* rotary_of(const Architecture& a, const AttentionSpec& attention) {
  return attention.rotary == kNotRotated ? nullptr
                                         : &a.rotaries[static_cast<size_t>(attention.rotary)];
}

void compare(const Architecture& wanted, const AttentionSpec& a, const Architecture& found,
             const AttentionSpec& b, Comparison& c) {
  c.same("the number of heads", a.shape.heads, b.shape.heads);
  c.same("the number of key heads", a.shape.kv_heads, b.shape.kv_heads);
  c.same("the size of a head", a.shape.head_dim, b.shape.head_dim);
  c.same("the scale of scores", a.shape.scale, b.shape.scale);
  c.same("the cap of scores", a.shape.softcap, b.shape.softcap);
  c.same("the window", a.shape.window, b.shape.window);
  c.same("whether attention has ALiBi's biases", a.shape.position_bias, b.shape.position_bias);
  c.same("whether attention has sinks", a.shape.sinks, b.shape.sinks);
  c.same("whether attention is causal", a.shape.causal, b.shape.causal);
  c.same("whether attention is of an encoder's output", a.shape.cross, b.shape.cross);
  c.same("whether attention has biases by distance", a.shape.relative_bias, b.shape.relative_bias);
  c.same("the clamp of queries, keys and values", a.clamp, b.clamp);
  c.same("whether queries are scaled by position", a.scales_queries, b.scales_queries);
  c.same("the number of matrices of queries, keys and values", a.in.size(), b.in.size());
  compare(a.q_norm, b.q_norm, c);
  compare(a.k_norm, b.k_norm, c);
  const RotarySpec *turned = rotary_of(wanted, a), *turned_found = rotary_of(found, b);
  c.same("whether heads are rotated", turned != nullptr, turned_found != nullptr);
  if (turned && turned_found) compare(*turned, *turned_found, c);
}

void compare(const ActivationRule& wanted, const ActivationRule& found, Comparison& c) {
  c.same("the activation", wanted.kind, found.kind);
  if (wanted.kind != Activation::kClampedSilu) return;
  c.same("the limit of the activation", wanted.limit, found.limit);
  c.same("alpha of the activation", wanted.alpha, found.alpha);
}

void compare(const MlpSpec& wanted, const MlpSpec& found, Comparison& c) {
  c.same("the inner size", wanted.inner, found.inner);
  c.same("whether the MLP is gated", wanted.gated, found.gated);
  c.same("the number of matrices of gate and up", wanted.in.size(), found.in.size());
  compare(wanted.activation, found.activation, c);
}

void compare(const ExpertsSpec& wanted, const ExpertsSpec& found, Comparison& c) {
  c.same("the number of experts", wanted.routing.experts, found.routing.experts);
  c.same("the number of active experts", wanted.routing.active, found.routing.active);
  c.same("whether experts' weights sum to 1", wanted.routing.renormalise,
         found.routing.renormalise);
  c.same("the inner size of an expert", wanted.inner, found.inner);
  c.same("whether experts have biases", wanted.gate_up.bias, found.gate_up.bias);
  compare(wanted.activation, found.activation, c);
  c.same("whether an expert is shared", wanted.shared.has_value(), found.shared.has_value());
  if (wanted.shared && found.shared) compare(*wanted.shared, *found.shared, c);
}

void compare(const Architecture& wanted, const Branch& a, const Architecture& found,
             const Branch& b, Comparison& c) {
  compare(a.before, b.before, c);
  compare(a.after, b.after, c);
  compare(a.sum, b.sum, c);
  c.same("the multiplier of a branch", a.multiplier, b.multiplier);
  c.same("whether branches stand side by side", a.beside, b.beside);
  c.same("whether branches share a norm", a.same_norm, b.same_norm);
  c.same("whether the residual is normed", a.onto_normed, b.onto_normed);
  c.same("the kind of a branch", a.mixer.index(), b.mixer.index());
  if (a.mixer.index() != b.mixer.index()) return;
  if (a.attention()) compare(wanted, *a.attention(), found, *b.attention(), c);
  if (a.mlp()) compare(*a.mlp(), *b.mlp(), c);
  if (a.experts()) compare(*a.experts(), *b.experts(), c);
}

void compare(const RelativeBiasSpec& wanted, const RelativeBiasSpec& found, Comparison& c) {
  c.same("the number of buckets of distances", wanted.buckets, found.buckets);
  c.same("the largest distance with a bucket", wanted.max_distance, found.max_distance);
}

void compare(const StackSpec& wanted, const StackSpec& found, Comparison& c) {
  c.same("the number of layers", wanted.num_layers(), found.num_layers());
  compare(wanted.final_norm, found.final_norm, c);
  compare(wanted.relative_bias, found.relative_bias, c);
}

void compare_outside(const Architecture& a, const Architecture& b, Comparison& c) {
  c.same("the vocabulary", a.vocab_size, b.vocab_size);
  c.same("the hidden size", a.hidden_size, b.hidden_size);
  c.same("the context", a.max_positions, b.max_positions);
  c.same("the width of embeddings", a.embedding.width, b.embedding.width);
  c.same("the multiplier of embeddings", a.embedding.multiplier, b.embedding.multiplier);
  c.same("the number of learned positions", a.embedding.positions.rows, b.embedding.positions.rows);
  compare(a.embedding.norm, b.embedding.norm, c);
  compare(a.encoder, b.encoder, c);
  compare(a.decoder, b.decoder, c);
  if (a.has_encoder())
    c.same("the token that a decoder begins with", a.decoder_tokens.start, b.decoder_tokens.start);
  c.same("whether embeddings are tied", a.tied_embeddings, b.tied_embeddings);
  c.same("whether the head has a bias", a.head.bias, b.head.bias);
  c.same("the multiplier of logits", a.logit_multiplier, b.logit_multiplier);
  c.same("the cap of logits", a.logit_softcap, b.logit_softcap);
  c.same("the scaling of queries", a.query_scaling.beta, b.query_scaling.beta);
  if (a.query_scaling.beta != 0)
    c.same("the step of the scaling of queries", a.query_scaling.step, b.query_scaling.step);
  c.same("whether ALiBi's slopes are the same", true, a.alibi.slopes == b.alibi.slopes);
  c.same("the scale of ALiBi", a.alibi.scale, b.alibi.scale);
}

}  // namespace

std::string first_difference(const Architecture& wanted, const Architecture& found) {
  Comparison c;
  compare_outside(wanted, found, c);
  const int64_t layers = std::min(wanted.num_layers(), found.num_layers());
  for (int64_t layer = 0; layer < layers; ++layer) {
    const auto &a = wanted.block(layer).branches, &b = found.block(layer).branches;
    c.at(fmt::format(" of layer {}", layer));
    c.same("the number of branches", a.size(), b.size());
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) compare(wanted, a[i], found, b[i], c);
  }
  return c.take();
}

}  // namespace qlora::model
