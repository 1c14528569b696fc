#include "model/fused_attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>

#include "base/profile.h"
#include "lora/autograd_function.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

// [tokens, heads * d] -> [tokens, heads, d], over the same memory.
at::Tensor by_heads(const at::Tensor& x, int64_t d) { return x.unflatten(1, {x.size(1) / d, d}); }

// A window's keys before the query; -1: all.
int64_t keys_before(const AttentionShape& s) { return s.window > 0 ? s.window - 1 : -1; }
int64_t keys_behind(const AttentionShape& s) { return s.causal ? 0 : -1; }

// What the backward pass needs beside the inputs.
struct Forward {
  at::Tensor out;           // [tokens, heads * head_dim]
  at::Tensor lse;           // fp32 [heads, tokens]
  at::Tensor random, seed;  // of a dropout that is never applied; the kernel wants them back
};

struct Kept : torch::CustomClassHolder {
  Kept(const AttentionCall& call) : shape(call.shape), longest(call.context.longest()) {
    if (call.rotary != nullptr) rotary = *call.rotary;
  }
  AttentionShape shape;
  int64_t longest;
  std::optional<RotaryTable> rotary;
};

// q, k rotated. With sinks the backward pass is the kernel's as it is: it takes probabilities as
// exp(score - lse) and takes off the sum of their gradients by `out`, and both know the sink.
Forward attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
               const AttentionShape& s, const AttentionContext& context, const at::Tensor& sinks) {
  const int64_t d = s.head_dim;
  const auto [out, lse, random, seed, unused] = at::_flash_attention_forward(
      by_heads(q, d), by_heads(k, d), by_heads(v, d), context.boundaries, context.boundaries,
      context.longest(), context.longest(), 0.0, s.causal, false, s.scale, keys_before(s),
      keys_behind(s));
  if (!s.sinks) return {out.view(q.sizes()), lse, random, seed};
  return {out.view(q.sizes()), add_sinks(out, lse, sinks), random, seed};
}

struct FusedAttentionNode : lora::Function<FusedAttentionNode> {
  static Variable forward(AutogradContext* ctx, const Variable& q, const Variable& k,
                          const Variable& v, const AttentionCall* call) {
    rotate_heads({q, k, v}, call->shape, call->rotary, false);
    const Forward f = attend(q, k, v, call->shape, call->context, call->sinks);
    ctx->save_for_backward({q, k, v, f.out, f.lse, f.random, f.seed, call->context.boundaries});
    ctx->saved_data["kept"] = c10::IValue::make_capsule(c10::make_intrusive<Kept>(*call));
    return f.out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("attention backward");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &boundaries = saved[7];
    const auto capsule = ctx->saved_data["kept"].toCapsule();
    const auto& kept = static_cast<const Kept&>(*capsule);
    const AttentionShape& s = kept.shape;
    const int64_t d = s.head_dim;
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        by_heads(gradients[0].contiguous(), d), by_heads(q, d), by_heads(k, d), by_heads(v, d),
        by_heads(saved[3], d), saved[4], boundaries, boundaries, kept.longest, kept.longest, 0.0,
        s.causal, saved[5], saved[6], s.scale, keys_before(s), keys_behind(s));
    variable_list d_qkv = {dq.reshape(q.sizes()), dk.reshape(k.sizes()), dv.reshape(v.sizes())};
    rotate_heads(d_qkv, s, kept.rotary ? &*kept.rotary : nullptr, true);
    d_qkv.emplace_back();
    return d_qkv;
  }
};

}  // namespace

bool has_fused_attention(const AttentionShape& shape, at::ScalarType dtype) {
  return (dtype == at::kBFloat16 || dtype == at::kHalf) && shape.head_dim % 8 == 0 &&
         shape.head_dim <= 256 && shape.softcap == 0 && !shape.position_bias;
}

at::Tensor add_sinks(const at::Tensor& out, const at::Tensor& lse, const at::Tensor& sinks) {
  const at::Tensor with_sinks = at::logaddexp(lse, sinks.view({-1, 1}));
  out.mul_((lse - with_sinks).exp_().t().unsqueeze(2));
  return with_sinks;
}

at::Tensor fused_attention(const AttentionCall& call) {
  const variable_list qkv = separate_heads(call.qkv, call.shape);
  if (at::GradMode::is_enabled()) return FusedAttentionNode::apply(qkv[0], qkv[1], qkv[2], &call);
  rotate_heads(qkv, call.shape, call.rotary, false);
  return attend(qkv[0], qkv[1], qkv[2], call.shape, call.context, call.sinks).out;
}

}  // namespace qlora::model
