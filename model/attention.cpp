#include "model/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "lora/columns.h"
#include "model/attention_kernels.h"
#include "model/element_pointer.h"
#include "model/flash_attention_kernels.h"
#include "model/float_attention_kernels.h"
#include "model/fused_attention.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

float scale_of(const AttentionShape& shape) {
  return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

cpu::ConstFloatRows float_rows(const at::Tensor& t) {
  return {t.const_data_ptr<float>(), t.stride(0)};
}
cpu::FloatRows mutable_float_rows(const at::Tensor& t) {
  return {t.mutable_data_ptr<float>(), t.stride(0)};
}

std::vector<cpu::FloatDocument> documents_of(const std::vector<int32_t>& cu_seqlens) {
  std::vector<cpu::FloatDocument> all;
  for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d)
    all.push_back({cu_seqlens[d], cu_seqlens[d + 1] - cu_seqlens[d], cu_seqlens[d], 0});
  return all;
}

// q, k, v fp32.
cpu::FloatAttention float_attention_of(const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const AttentionShape& s,
                                       std::vector<cpu::FloatDocument> documents) {
  return {float_rows(q), float_rows(k), float_rows(v),        s.heads,  s.kv_heads,
          s.head_dim,    scale_of(s),   std::move(documents), q.size(0)};
}

// Attention in fp32 of tensors of any type.
at::Tensor attend_in_float(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionShape& s, std::vector<cpu::FloatDocument> documents,
                           const at::Tensor& lse) {
  const at::Tensor fq = q.to(at::kFloat), fk = k.to(at::kFloat), fv = v.to(at::kFloat);
  const at::Tensor out = at::empty(q.sizes(), q.options().dtype(at::kFloat));
  cpu::float_attention(float_attention_of(fq, fk, fv, s, std::move(documents)),
                       mutable_float_rows(out), lse.defined() ? lse.data_ptr<float>() : nullptr);
  return out.to(q.scalar_type());
}

struct Gradients {
  at::Tensor q, k, v;
};

// Side by side, as one product with the three weights' rows takes them.
Gradients gradients_like(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor all = at::empty({q.size(0), q.size(1) + k.size(1) + v.size(1)}, q.options());
  const auto parts = lora::columns_of(all, {q.size(1), k.size(1), v.size(1)});
  return {parts[0], parts[1], parts[2]};
}

Gradients differentiate_in_float(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const at::Tensor& out, const at::Tensor& lse,
                                 const at::Tensor& d_out, const AttentionShape& s,
                                 const std::vector<int32_t>& cu_seqlens) {
  const at::Tensor fq = q.to(at::kFloat), fk = k.to(at::kFloat), fv = v.to(at::kFloat);
  const at::Tensor f_out = out.to(at::kFloat), fd_out = d_out.to(at::kFloat);
  const Gradients d = gradients_like(fq, fk, fv);
  cpu::float_attention_backward(
      float_attention_of(fq, fk, fv, s, documents_of(cu_seqlens)), float_rows(f_out),
      float_rows(fd_out), lse.const_data_ptr<float>(),
      {mutable_float_rows(d.q), mutable_float_rows(d.k), mutable_float_rows(d.v)});
  if (q.scalar_type() == at::kFloat) return d;
  Gradients narrow = gradients_like(q, k, v);
  narrow.q.copy_(d.q);
  narrow.k.copy_(d.k);
  narrow.v.copy_(d.v);
  return narrow;
}

bool is_flash(const at::Tensor& q, const AttentionShape& s) {
  return q.scalar_type() == at::kBFloat16 && cpu::supports_flash_avx512(s.head_dim);
}

cpu::HeadRows<const uint16_t> rows_of(const at::Tensor& t) {
  return {static_cast<const uint16_t*>(t.const_data_ptr()), t.stride(0)};
}
cpu::HeadRows<uint16_t> mutable_rows_of(const at::Tensor& t) {
  return {static_cast<uint16_t*>(t.mutable_data_ptr()), t.stride(0)};
}

cpu::FlashAttention flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const AttentionShape& s,
                                    const std::vector<int32_t>& cu_seqlens) {
  return {rows_of(q), rows_of(k), rows_of(v),  s.heads,
          s.kv_heads, s.head_dim, scale_of(s), cu_seqlens};
}

// q, k rotated; lse [heads, tokens] is filled.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionShape& s, const std::vector<int32_t>& cu_seqlens,
                  at::Tensor& lse) {
  if (!is_flash(q, s)) return attend_in_float(q, k, v, s, documents_of(cu_seqlens), lse);
  at::Tensor out = at::empty(q.sizes(), q.options());
  cpu::flash_forward(flash_attention(q, k, v, s, cu_seqlens), mutable_rows_of(out),
                     lse.data_ptr<float>());
  return out;
}

Gradients gradients_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const at::Tensor& out, const at::Tensor& lse, const at::Tensor& d_out,
                       const AttentionShape& s, const std::vector<int32_t>& cu_seqlens) {
  if (!is_flash(q, s)) return differentiate_in_float(q, k, v, out, lse, d_out, s, cu_seqlens);
  Gradients d = gradients_like(q, k, v);
  cpu::flash_backward(flash_attention(q, k, v, s, cu_seqlens), rows_of(out), rows_of(d_out),
                      lse.const_data_ptr<float>(),
                      {mutable_rows_of(d.q), mutable_rows_of(d.k), mutable_rows_of(d.v)});
  return d;
}

struct AttentionNode : lora::Function<AttentionNode> {
  static Variable forward(AutogradContext* ctx, const Variable& q, const Variable& k,
                          const Variable& v, const AttentionShape* shape,
                          const AttentionContext* context) {
    const at::Tensor rq = rotate(q, context->rotary, false), rk = rotate(k, context->rotary, false);
    at::Tensor lse = at::empty({shape->heads, q.size(0)}, q.options().dtype(at::kFloat));
    at::Tensor out = attend(rq, rk, v, *shape, context->cu_seqlens, lse);
    ctx->save_for_backward({rq, rk, v, lse, context->rotary.cos, context->rotary.sin, out});
    ctx->saved_data["cu_seqlens"] =
        std::vector<int64_t>(context->cu_seqlens.begin(), context->cu_seqlens.end());
    ctx->saved_data["shape"] = std::vector<int64_t>{shape->heads, shape->kv_heads, shape->head_dim};
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("attention backward");
    const auto saved = ctx->get_saved_variables();
    const auto wide = ctx->saved_data["cu_seqlens"].toIntVector();
    const auto dims = ctx->saved_data["shape"].toIntVector();
    const AttentionShape shape{dims[0], dims[1], dims[2]};
    Gradients d = gradients_of(saved[0], saved[1], saved[2], saved[6], saved[3],
                               gradients[0].contiguous(), shape, {wide.begin(), wide.end()});
    const RotaryTable table{saved[4], saved[5]};
    return {rotate(d.q, table, true), rotate(d.k, table, true), d.v, Variable(), Variable()};
  }
};

// A rotated copy, for attention whose gradient is autograd's own.
struct RotateNode : lora::Function<RotateNode> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const RotaryTable* table) {
    ctx->save_for_backward({table->cos, table->sin});
    return rotate(x.clone(), *table, false);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    return {rotate(gradients[0].clone(at::MemoryFormat::Contiguous), {saved[0], saved[1]}, true),
            Variable()};
  }
};

// [rows, heads * d] -> [1, heads, rows, d], the layout of ATen's fused attention.
at::Tensor batched(const at::Tensor& x, int64_t d) {
  return x.view({x.size(0), x.size(1) / d, d}).permute({1, 0, 2}).unsqueeze(0);
}

// Stock ATen, with its own autograd: float32 on a GPU. q, k rotated.
at::Tensor composed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t d) {
  const int64_t past = k.size(0) - q.size(0);
  std::optional<at::Tensor> mask;
  if (past > 0) mask = at::ones({q.size(0), k.size(0)}, q.options().dtype(at::kBool)).tril(past);
  const at::Tensor y = at::scaled_dot_product_attention(batched(q, d), batched(k, d), batched(v, d),
                                                        mask, 0.0, past == 0, std::nullopt, true);
  return y.squeeze(0).permute({1, 0, 2}).reshape(q.sizes());
}

at::Tensor composed_documents(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              int64_t d, const std::vector<int32_t>& cu_seqlens) {
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    const int64_t begin = cu_seqlens[i], rows = cu_seqlens[i + 1] - begin;
    parts.push_back(
        composed(q.narrow(0, begin, rows), k.narrow(0, begin, rows), v.narrow(0, begin, rows), d));
  }
  return at::cat(parts, 0);
}

// One new token of each sequence, which the cache holds already.
template <typename T>
void decode_cpu(const at::Tensor& q, const AttentionShape& s, const KvCache& cache, int64_t layer,
                at::Tensor& out) {
  std::vector<cpu::DecodeRow<T>> rows;
  for (int64_t i = 0; i < q.size(0); ++i) {
    const int64_t length = cache.length(i) + 1;
    rows.push_back({static_cast<const T*>(q.const_data_ptr()) + i * q.stride(0),
                    static_cast<const T*>(cache.keys(layer, i, length).const_data_ptr()),
                    static_cast<const T*>(cache.values(layer, i, length).const_data_ptr()),
                    static_cast<T*>(out.mutable_data_ptr()) + i * q.size(1), length});
  }
  cpu::decode_attention(rows.data(), q.size(0), s.heads, s.kv_heads, s.head_dim, scale_of(s));
}

// Generation: new tokens join the cache, then attend to all of their sequence.
at::Tensor cached(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionShape& s, const AttentionContext& context, int64_t layer) {
  KvCache& cache = *context.cache;
  const auto& cu = context.cu_seqlens;
  const int64_t sequences = static_cast<int64_t>(cu.size()) - 1;
  at::Tensor out = at::empty(q.sizes(), q.options());
  if (q.is_cpu() && q.size(0) == sequences) {  // one new token each
    cache.append_one_each(layer, k, v);
    with_elements(out,
                  [&](auto* y) { decode_cpu<ElementOf<decltype(y)>>(q, s, cache, layer, out); });
    return out;
  }
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t begin = cu[static_cast<size_t>(i)], rows = cu[static_cast<size_t>(i) + 1] - begin;
    cache.append(layer, i, k.narrow(0, begin, rows), v.narrow(0, begin, rows));
    const int64_t length = cache.length(i) + rows;
    const at::Tensor keys = cache.keys(layer, i, length), values = cache.values(layer, i, length);
    const at::Tensor queries = q.narrow(0, begin, rows);
    out.narrow(0, begin, rows)
        .copy_(q.is_cpu() ? attend_in_float(queries, keys, values, s, {{0, rows, 0, length - rows}},
                                            at::Tensor())
                          : composed(queries, keys, values, s.head_dim));
  }
  return out;
}

}  // namespace

int64_t AttentionContext::longest() const {
  int64_t most = 0;
  for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d)
    most = std::max<int64_t>(most, cu_seqlens[d + 1] - cu_seqlens[d]);
  return most;
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionShape& shape, const AttentionContext& context, int64_t layer) {
  const ProfileScope scope("attention");
  if (context.cache) {
    at::NoGradGuard no_grad;
    return cached(rotate(q, context.rotary, false), rotate(k, context.rotary, false), v, shape,
                  context, layer);
  }
  if (has_fused_attention(q, shape)) return fused_attention(q, k, v, shape, context);
  if (!q.is_cpu())
    return composed_documents(RotateNode::apply(q, &context.rotary),
                              RotateNode::apply(k, &context.rotary), v, shape.head_dim,
                              context.cu_seqlens);
  if (at::GradMode::is_enabled()) return AttentionNode::apply(q, k, v, &shape, &context);
  const at::Tensor rq = rotate(q, context.rotary, false), rk = rotate(k, context.rotary, false);
  at::Tensor lse = at::empty({shape.heads, q.size(0)}, q.options().dtype(at::kFloat));
  return attend(rq, rk, v, shape, context.cu_seqlens, lse);
}

}  // namespace qlora::model
