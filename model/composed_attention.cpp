#include "model/composed_attention.h"

#include <ATen/ATen.h>

#include <optional>

#include "lora/autograd_function.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

// A rotated copy.
struct RotateNode : lora::Function<RotateNode> {
  struct Table : torch::CustomClassHolder {
    explicit Table(const RotaryTable& t) : table(t) {}
    RotaryTable table;
  };

  static Variable forward(AutogradContext* ctx, const Variable& x, const RotaryTable* table) {
    ctx->saved_data["table"] = c10::IValue::make_capsule(c10::make_intrusive<Table>(*table));
    return rotate(x.clone(at::MemoryFormat::Contiguous), *table, false);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto capsule = ctx->saved_data["table"].toCapsule();
    return {rotate(gradients[0].clone(at::MemoryFormat::Contiguous),
                   static_cast<const Table&>(*capsule).table, true),
            Variable()};
  }
};

// [rows, heads * d] -> [heads, rows, d].
at::Tensor by_heads(const at::Tensor& x, int64_t d) {
  return x.unflatten(1, {x.size(1) / d, d}).permute({1, 0, 2});
}

// Whether query i, which is at position past + i, sees key j: bool [queries, keys].
at::Tensor visible(int64_t queries, int64_t keys, const AttentionShape& s,
                   const at::TensorOptions& options) {
  const int64_t past = keys - queries;
  at::Tensor sees = at::ones({queries, keys}, options.dtype(at::kBool));
  if (s.causal) sees = sees.tril(past);
  if (s.window > 0) sees = sees.triu(past - s.window + 1);
  return sees;
}

// ATen's own attention of the plain kind.
at::Tensor plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const AttentionShape& s) {
  std::optional<at::Tensor> mask;
  const bool has_past = k.size(1) > q.size(1);
  if (has_past) mask = visible(q.size(1), k.size(1), s, q.options());
  return at::scaled_dot_product_attention(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), mask, 0.0,
                                          !has_past, s.scale, true)
      .squeeze(0);
}

// What is added to the scores of each query and key, [heads, queries, keys]: a row of the biases by
// distance lies one further to the left for each query.
at::Tensor by_distance(const at::Tensor& biases, int64_t queries, int64_t keys) {
  const int64_t past = keys - queries, reach = (biases.size(1) + 1) / 2;
  return biases.unfold(1, keys, 1).narrow(1, reach - past - queries, queries).flip(1);
}

// Scores in fp32, or in double.
at::Tensor scored(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionCall& call) {
  const AttentionShape& s = call.shape;
  const at::ScalarType type = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t queries = q.size(1), keys = k.size(1);
  const at::Tensor shared_k = k.repeat_interleave(s.share(), 0),
                   shared_v = v.repeat_interleave(s.share(), 0);
  at::Tensor scores = at::matmul(q.to(type), shared_k.to(type).transpose(1, 2)) * s.scale;
  if (s.softcap > 0) scores = at::tanh(scores / s.softcap) * s.softcap;
  if (s.position_bias) scores = scores + call.context.position_bias.narrow(1, 0, keys).unsqueeze(1);
  if (s.relative_bias) scores = scores + by_distance(call.context.relative_bias, queries, keys);
  if (s.causal || s.window > 0)
    scores = scores.masked_fill(visible(queries, keys, s, q.options()).logical_not(), -INFINITY);
  if (s.sinks)
    scores =
        at::cat({scores, call.sinks.view({-1, 1, 1}).expand({s.heads, queries, 1}).to(type)}, 2);
  at::Tensor p = at::softmax(scores, 2);
  if (s.sinks) p = p.narrow(2, 0, keys);
  return at::matmul(p.to(v.scalar_type()), shared_v);
}

}  // namespace

at::Tensor composed_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttentionCall& call) {
  const int64_t d = call.shape.head_dim;
  const at::Tensor hq = by_heads(q, d), hk = by_heads(k, d), hv = by_heads(v, d);
  const at::Tensor y =
      call.shape.is_plain() ? plain(hq, hk, hv, call.shape) : scored(hq, hk, hv, call);
  return y.permute({1, 0, 2}).reshape(q.sizes());
}

at::Tensor composed_attention(const AttentionCall& call) {
  variable_list qkv = separate_heads(call.qkv, call.shape);
  if (call.rotary != nullptr)
    for (size_t i : {0, 1}) qkv[i] = RotateNode::apply(qkv[i], call.rotary);
  const std::vector<int32_t>& cu = call.context.cu_seqlens;
  const std::vector<int32_t>& cu_keys = call.key_seqlens();
  variable_list parts;
  for (size_t i = 0; i + 1 < cu.size(); ++i) {
    const auto of_document = [i](const at::Tensor& x, const std::vector<int32_t>& bounds) {
      return x.narrow(0, bounds[i], bounds[i + 1] - bounds[i]);
    };
    parts.push_back(composed_document(of_document(qkv[0], cu), of_document(qkv[1], cu_keys),
                                      of_document(qkv[2], cu_keys), call));
  }
  return at::cat(parts);
}

}  // namespace qlora::model
