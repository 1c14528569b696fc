#include "model/attention_call.h"

#include <ATen/ATen.h>

namespace qlora::model {
namespace {

// `groups` times `width` columns, `step` columns from one to the next.
struct Columns {
  int64_t begin, step, width, groups;

  bool are_adjacent() const { return step == width || groups == 1; }
};

at::Tensor columns(const at::Tensor& all, const Columns& c) {
  if (c.are_adjacent()) return all.narrow(1, c.begin, c.groups * c.width);
  return all.narrow(1, 0, c.groups * c.step)
      .unflatten(1, {c.groups, c.step})
      .narrow(2, c.begin, c.width)
      .reshape({all.size(0), c.groups * c.width});
}

Columns queries_of(const AttentionShape& s) {
  return {s.layout.q, s.layout.q_step, s.share() * s.head_dim, s.kv_heads};
}
Columns keys_of(const AttentionShape& s, int64_t begin) {
  return {begin, s.layout.kv_step, s.head_dim, s.kv_heads};
}

void rotate_columns(const at::Tensor& all, const Columns& c, const RotaryTable& table,
                    bool inverse) {
  if (c.are_adjacent()) {
    rotate(all.narrow(1, c.begin, c.groups * c.width), table, inverse);
    return;
  }
  for (int64_t group = 0; group < c.groups; ++group)
    rotate(all.narrow(1, c.begin + group * c.step, c.width), table, inverse);
}

}  // namespace

cpu::ScoreRules score_rules(const AttentionCall& call) {
  const AttentionShape& s = call.shape;
  cpu::ScoreRules rules{s.scale, static_cast<float>(s.softcap), s.window};
  if (s.position_bias) {
    rules.bias = call.context.position_bias.const_data_ptr<float>();
    rules.bias_stride = call.context.position_bias.stride(0);
  }
  if (s.relative_bias) {
    const at::Tensor& biases = call.context.relative_bias;
    rules.bias = biases.const_data_ptr<float>();
    rules.bias_stride = biases.stride(0);
    rules.reach = (biases.size(1) + 1) / 2;
  }
  if (s.sinks) rules.sinks = call.sinks.const_data_ptr<float>();
  return rules;
}

std::vector<at::Tensor> separate_heads(const std::vector<at::Tensor>& qkv,
                                       const AttentionShape& shape) {
  if (qkv.size() == 3) return qkv;
  return {columns(qkv[0], queries_of(shape)), columns(qkv[0], keys_of(shape, shape.layout.k)),
          columns(qkv[0], keys_of(shape, shape.layout.v))};
}

void rotate_heads(const std::vector<at::Tensor>& qkv, const AttentionShape& shape,
                  const RotaryTable* table, bool inverse) {
  if (table == nullptr) return;
  if (qkv.size() == 3) {
    rotate(qkv[0], qkv[1], *table, inverse);
    return;
  }
  rotate_columns(qkv[0], queries_of(shape), *table, inverse);
  rotate_columns(qkv[0], keys_of(shape, shape.layout.k), *table, inverse);
}

}  // namespace qlora::model
