#include "model/cpu_attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>
#include <type_traits>
#include <utility>

#include "base/profile.h"
#include "lora/autograd_function.h"
#include "lora/columns.h"
#include "model/flash_attention_kernels.h"
#include "model/float_attention_kernels.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

// bf16 as its bits.
template <typename T>
T* data_of(const at::Tensor& t) {
  if constexpr (std::is_const_v<T>)
    return static_cast<T*>(t.const_data_ptr());
  else
    return static_cast<T*>(t.mutable_data_ptr());
}

// Heads side by side.
template <typename T>
cpu::HeadRows<T> rows_of(const at::Tensor& t, int64_t head_dim) {
  return {data_of<T>(t), t.stride(0), head_dim};
}

template <typename T>
struct Rows {
  cpu::HeadRows<T> q, k, v;
};

template <typename T>
Rows<T> rows_of(const variable_list& qkv, const AttentionShape& s) {
  const int64_t dim = s.head_dim;
  if (qkv.size() == 3)
    return {rows_of<T>(qkv[0], dim), rows_of<T>(qkv[1], dim), rows_of<T>(qkv[2], dim)};
  T* const data = data_of<T>(qkv[0]);
  const int64_t stride = qkv[0].stride(0);
  const HeadLayout& at = s.layout;
  return {{data + at.q, stride, at.q_step, s.share()},
          {data + at.k, stride, at.kv_step},
          {data + at.v, stride, at.kv_step}};
}

// Side by side, as one product with all these weights' rows takes them.
variable_list columns_like(const variable_list& all) {
  std::vector<int64_t> widths;
  int64_t width = 0;
  for (const at::Tensor& part : all) width += widths.emplace_back(part.size(1));
  return lora::columns_of(at::empty({all[0].size(0), width}, all[0].options()), widths);
}

variable_list gradients_like(const variable_list& qkv, const AttentionShape& s) {
  if (!s.cross) return columns_like(qkv);
  variable_list all = columns_like({qkv[1], qkv[2]});
  all.insert(all.begin(), at::empty(qkv[0].sizes(), qkv[0].options()));
  return all;
}

variable_list to_float(const variable_list& qkv) {
  variable_list all;
  for (const at::Tensor& part : qkv) all.push_back(part.to(at::kFloat));
  return all;
}

at::Tensor out_like(const at::Tensor& q, const AttentionShape& s) {
  return at::empty({q.size(0), s.heads * s.head_dim}, q.options());
}

// What backward needs beside the tensors of the graph.
struct Kept : torch::CustomClassHolder {
  Kept(const AttentionCall& call, bool flash)
      : rules(score_rules(call)),
        shape(call.shape),
        cu_seqlens(call.context.cu_seqlens),
        key_seqlens(call.key_seqlens()),
        is_flash(flash) {
    if (call.rotary != nullptr) rotary = *call.rotary;
    bias = shape.position_bias ? call.context.position_bias : call.context.relative_bias;
    rules.sinks = nullptr;  // they are in the log-sum-exp
  }
  cpu::ScoreRules rules;  // its bias, if any, lies in `bias`
  at::Tensor bias;
  AttentionShape shape;
  std::vector<int32_t> cu_seqlens, key_seqlens;
  std::optional<RotaryTable> rotary;
  bool is_flash;
};

std::vector<cpu::FloatDocument> documents_of(const std::vector<int32_t>& cu_seqlens,
                                             const std::vector<int32_t>& key_seqlens) {
  std::vector<cpu::FloatDocument> all;
  for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d)
    all.push_back({cu_seqlens[d], cu_seqlens[d + 1] - cu_seqlens[d], key_seqlens[d],
                   key_seqlens[d + 1] - key_seqlens[d]});
  return all;
}

// qkv fp32.
cpu::FloatAttention float_attention_of(const variable_list& qkv, const AttentionShape& s,
                                       const cpu::ScoreRules& rules,
                                       std::vector<cpu::FloatDocument> documents) {
  const auto [q, k, v] = rows_of<const float>(qkv, s);
  return {
      q,       k, v, s.heads, s.kv_heads, s.head_dim, rules, std::move(documents), qkv[0].size(0),
      s.causal};
}

at::Tensor attend_in_float(const variable_list& qkv, const AttentionCall& call,
                           std::vector<cpu::FloatDocument> documents, float* lse) {
  const AttentionShape& s = call.shape;
  const variable_list wide = to_float(qkv);
  const at::Tensor out = out_like(wide[0], s);
  cpu::float_attention(float_attention_of(wide, s, score_rules(call), std::move(documents)),
                       rows_of<float>(out, s.head_dim), lse);
  return out.to(qkv[0].scalar_type());
}

variable_list differentiate_in_float(const variable_list& qkv, const Kept& kept,
                                     const at::Tensor& out, const at::Tensor& lse,
                                     const at::Tensor& d_out) {
  const AttentionShape& s = kept.shape;
  const variable_list wide = to_float(qkv);
  const at::Tensor f_out = out.to(at::kFloat), fd_out = d_out.to(at::kFloat);
  const variable_list d = gradients_like(wide, s);
  const auto [dq, dk, dv] = rows_of<float>(d, s);
  cpu::float_attention_backward(
      float_attention_of(wide, s, kept.rules, documents_of(kept.cu_seqlens, kept.key_seqlens)),
      rows_of<const float>(f_out, s.head_dim), rows_of<const float>(fd_out, s.head_dim),
      lse.const_data_ptr<float>(), {dq, dk, dv});
  if (qkv[0].scalar_type() == at::kFloat) return d;
  variable_list narrow = gradients_like(qkv, s);
  for (size_t i = 0; i < d.size(); ++i) narrow[i].copy_(d[i]);
  return narrow;
}

cpu::FlashAttention flash_attention_of(const variable_list& qkv, const AttentionShape& s,
                                       const cpu::ScoreRules& rules,
                                       const std::vector<int32_t>& cu_seqlens,
                                       const std::vector<int32_t>& key_seqlens) {
  const auto [q, k, v] = rows_of<const uint16_t>(qkv, s);
  return {q, k, v, s.heads, s.kv_heads, s.head_dim, rules, cu_seqlens, key_seqlens, s.causal};
}

variable_list differentiate_flash(const variable_list& qkv, const Kept& kept, const at::Tensor& out,
                                  const at::Tensor& lse, const at::Tensor& d_out) {
  const AttentionShape& s = kept.shape;
  variable_list d = gradients_like(qkv, s);
  const auto [dq, dk, dv] = rows_of<uint16_t>(d, s);
  cpu::flash_backward(flash_attention_of(qkv, s, kept.rules, kept.cu_seqlens, kept.key_seqlens),
                      rows_of<const uint16_t>(out, s.head_dim),
                      rows_of<const uint16_t>(d_out, s.head_dim), lse.const_data_ptr<float>(),
                      {dq, dk, dv});
  return d;
}

// qkv rotated; lse [heads, tokens] is filled.
at::Tensor attend(const AttentionCall& call, bool flash, const at::Tensor& lse) {
  const AttentionShape& s = call.shape;
  const std::vector<int32_t>& cu_seqlens = call.context.cu_seqlens;
  if (!flash)
    return attend_in_float(call.qkv, call, documents_of(cu_seqlens, call.key_seqlens()),
                           lse.mutable_data_ptr<float>());
  at::Tensor out = out_like(call.qkv[0], s);
  cpu::flash_forward(
      flash_attention_of(call.qkv, s, score_rules(call), cu_seqlens, call.key_seqlens()),
      rows_of<uint16_t>(out, s.head_dim), lse.mutable_data_ptr<float>());
  return out;
}

at::Tensor rotate_and_attend(const AttentionCall& call, bool flash, at::Tensor& lse) {
  rotate_heads(call.qkv, call.shape, call.rotary, false);
  lse = at::empty({call.shape.heads, call.tokens()}, call.qkv[0].options().dtype(at::kFloat));
  return attend(call, flash, lse);
}

struct CpuAttentionNode : lora::Function<CpuAttentionNode> {
  // k and v: absent where q is all three.
  static Variable forward(AutogradContext* ctx, const Variable& q, const std::optional<Variable>& k,
                          const std::optional<Variable>& v, const AttentionCall* call, bool flash) {
    (void)q, (void)k, (void)v;  // those of the call
    at::Tensor lse;
    at::Tensor out = rotate_and_attend(*call, flash, lse);
    variable_list saved = {lse, out};
    saved.insert(saved.end(), call->qkv.begin(), call->qkv.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["kept"] = c10::IValue::make_capsule(c10::make_intrusive<Kept>(*call, flash));
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("attention backward");
    const auto saved = ctx->get_saved_variables();
    const auto capsule = ctx->saved_data["kept"].toCapsule();
    const auto& kept = static_cast<const Kept&>(*capsule);
    const variable_list qkv(saved.begin() + 2, saved.end());
    const at::Tensor d_out = gradients[0].contiguous();
    const auto differentiate = kept.is_flash ? differentiate_flash : differentiate_in_float;
    variable_list d = differentiate(qkv, kept, saved[1], saved[0], d_out);
    rotate_heads(d, kept.shape, kept.rotary ? &*kept.rotary : nullptr, true);
    d.resize(5);
    return d;
  }
};

at::Tensor attention_on_cpu(const AttentionCall& call, bool flash) {
  if (!at::GradMode::is_enabled()) {
    at::Tensor lse;
    return rotate_and_attend(call, flash, lse);
  }
  if (call.qkv.size() == 3)
    return CpuAttentionNode::apply(call.qkv[0], std::optional(call.qkv[1]),
                                   std::optional(call.qkv[2]), &call, flash);
  const std::optional<Variable> absent;
  return CpuAttentionNode::apply(call.qkv[0], absent, absent, &call, flash);
}

}  // namespace

at::Tensor flash_attention_on_cpu(const AttentionCall& call) {
  return attention_on_cpu(call, true);
}

at::Tensor float_attention_on_cpu(const AttentionCall& call) {
  return attention_on_cpu(call, false);
}

at::Tensor continue_on_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionCall& call) {
  const int64_t past = k.size(0) - q.size(0);
  return attend_in_float({q, k, v}, call, {{0, q.size(0), 0, k.size(0), past}}, nullptr);
}

}  // namespace qlora::model
