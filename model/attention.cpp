#include "model/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/profile.h"
#include "model/attention_call.h"
#include "model/attention_kernels.h"
#include "model/attention_routes.h"
#include "model/composed_attention.h"
#include "model/cpu_attention.h"
#include "model/element_pointer.h"
#include "quant/few_rows/rows_product.h"

namespace qlora::model {
namespace {

// Few new tokens of each sequence, row by row, so that the result for a token does not depend on
// how many came with it. q rotated, k and v are in the cache already.
template <typename T>
void decode_cpu(const at::Tensor& q, const AttentionCall& call, int64_t layer,
                const at::Tensor& out) {
  const AttentionShape& s = call.shape;
  const KvCache& cache = *call.context.cache;
  const cpu::ScoreRules rules = score_rules(call);
  const int64_t width = s.kv_heads * s.head_dim;
  std::vector<cpu::DecodeRow<T>> rows;
  for (int64_t sequence = 0; sequence < cache.num_sequences(); ++sequence) {
    const int64_t begin = call.context.cu_seqlens[static_cast<size_t>(sequence)],
                  end = call.context.cu_seqlens[static_cast<size_t>(sequence) + 1];
    const int64_t longest = cache.length(sequence) + end - begin;
    const at::Tensor keys = cache.keys(layer, sequence, longest),
                     values = cache.values(layer, sequence, longest);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t length = longest - (end - 1 - i), first = rules.first_key(length - 1);
      rows.push_back({static_cast<const T*>(q.const_data_ptr()) + i * q.stride(0),
                      static_cast<const T*>(keys.const_data_ptr()) + first * width,
                      static_cast<const T*>(values.const_data_ptr()) + first * width,
                      static_cast<T*>(out.mutable_data_ptr()) + i * q.size(1), length - first,
                      first});
    }
  }
  cpu::decode_attention(rows.data(), q.size(0), s.heads, s.kv_heads, s.head_dim, rules);
}

// Generation: new tokens join the cache, then attend to all of their sequence.
at::Tensor cached(const AttentionCall& call, int64_t layer) {
  const AttentionShape& s = call.shape;
  const std::vector<at::Tensor> qkv = separate_heads(call.qkv, s);
  rotate_heads(qkv, s, call.rotary, false);
  const at::Tensor &q = qkv[0], &k = qkv[1], &v = qkv[2];
  KvCache& cache = *call.context.cache;
  const auto& cu = call.context.cu_seqlens;
  const int64_t sequences = static_cast<int64_t>(cu.size()) - 1;
  at::Tensor out = at::empty(q.sizes(), q.options());
  const bool by_kernels = q.is_cpu();
  if (by_kernels && call.context.longest() <= quant::kFewRows) {
    cache.append_each(layer, cu, k, v);
    with_elements(out, [&](auto* y) { decode_cpu<ElementOf<decltype(y)>>(q, call, layer, out); });
    return out;
  }
  const auto attend = by_kernels ? continue_on_cpu : composed_document;
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t begin = cu[static_cast<size_t>(i)], rows = cu[static_cast<size_t>(i) + 1] - begin;
    cache.append(layer, i, k.narrow(0, begin, rows), v.narrow(0, begin, rows));
    const int64_t length = cache.length(i) + rows;
    out.narrow(0, begin, rows)
        .copy_(attend(q.narrow(0, begin, rows), cache.keys(layer, i, length),
                      cache.values(layer, i, length), call));
  }
  return out;
}

void check_widths(const std::vector<at::Tensor>& qkv, const AttentionShape& s) {
  const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  const auto is = [](const at::Tensor& t, int64_t width) {
    return t.dim() == 2 && t.size(1) == width && t.stride(1) == 1;
  };
  check(qkv.size() == 3   ? is(qkv[0], q) && is(qkv[1], kv) && is(qkv[2], kv)
        : qkv.size() == 1 ? is(qkv[0], s.width())
                          : false,
        "attention: needs q [tokens, {}] and k, v [tokens, {}] with contiguous rows, or all three "
        "as [tokens, {}]",
        q, kv, s.width());
}

void check_additions(const AttentionCall& call, int64_t longest) {
  const AttentionShape& s = call.shape;
  const at::Tensor& bias = call.context.position_bias;
  check(!s.position_bias ||
            (bias.defined() && bias.scalar_type() == at::kFloat && bias.dim() == 2 &&
             bias.size(0) == s.heads && bias.size(1) >= longest && bias.stride(1) == 1),
        "attention: needs a position bias in float32 [{}, {} or more]", s.heads, longest);
  check(!s.sinks || (call.sinks.defined() && call.sinks.scalar_type() == at::kFloat &&
                     call.sinks.dim() == 1 && call.sinks.size(0) == s.heads),
        "attention: needs sinks in float32 [{}]", s.heads);
  check(!s.position_bias || !s.relative_bias,
        "attention: biases are by position or by distance, not both");
  const at::Tensor& relative = call.context.relative_bias;
  check(!s.relative_bias || (relative.defined() && relative.scalar_type() == at::kFloat &&
                             relative.dim() == 2 && relative.size(0) == s.heads &&
                             relative.size(1) >= 2 * longest - 1 && relative.stride(1) == 1),
        "attention: needs a bias by distance in float32 [{}, {} or more]", s.heads,
        2 * longest - 1);
}

}  // namespace

int64_t AttentionContext::longest() const {
  int64_t most = 0;
  for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d)
    most = std::max<int64_t>(most, cu_seqlens[d + 1] - cu_seqlens[d]);
  return most;
}

int64_t AttentionContext::most_keys() const {
  int64_t most = 0;
  for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d)
    most = std::max<int64_t>(most, cu_seqlens[d + 1] - cu_seqlens[d] +
                                       (cache ? cache->length(static_cast<int64_t>(d)) : 0));
  return most;
}

at::Tensor attention(const std::vector<at::Tensor>& qkv, const AttentionShape& shape,
                     const RotaryTable* rotary, const AttentionContext& context, int64_t layer) {
  const ProfileScope scope("attention");
  check_widths(qkv, shape);
  AttentionCall call{qkv, shape, rotary, context};
  if (shape.sinks) call.sinks = context.sinks.at(static_cast<size_t>(layer));
  check(!shape.cross || context.key_seqlens.size() == context.cu_seqlens.size(),
        "attention: each document needs a text whose keys it sees");
  if (shape.position_bias || shape.sinks || shape.relative_bias)
    check_additions(call, context.most_keys());
  if (context.cache) {
    at::NoGradGuard no_grad;
    return cached(call, layer);
  }
  return attention_route(shape, qkv[0].scalar_type(), qkv[0].device().type()).run(call);
}

}  // namespace qlora::model
