#include "model/fused_attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/profile.h"
#include "lora/autograd_function.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

// [tokens, heads * d] -> [tokens, heads, d], over the same memory.
at::Tensor by_heads(const at::Tensor& x, int64_t d) {
  return x.view({x.size(0), x.size(1) / d, d});
}

double scale_of(int64_t head_dim) { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }

// What the backward pass needs beside the inputs.
struct Forward {
  at::Tensor out;           // [tokens, heads * head_dim]
  at::Tensor lse;           // fp32 [heads, tokens]
  at::Tensor random, seed;  // of a dropout that is never applied; the kernel wants them back
};

// q, k rotated.
Forward attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t d,
               const AttentionContext& context) {
  const auto [out, lse, random, seed, unused] = at::_flash_attention_forward(
      by_heads(q, d), by_heads(k, d), by_heads(v, d), context.boundaries, context.boundaries,
      context.longest(), context.longest(), 0.0, true, false, scale_of(d));
  return {out.view(q.sizes()), lse, random, seed};
}

struct FusedAttentionNode : lora::Function<FusedAttentionNode> {
  static Variable forward(AutogradContext* ctx, const Variable& q, const Variable& k,
                          const Variable& v, int64_t head_dim, const AttentionContext* context) {
    const at::Tensor rq = rotate(q, context->rotary, false), rk = rotate(k, context->rotary, false);
    const Forward f = attend(rq, rk, v, head_dim, *context);
    ctx->save_for_backward({rq, rk, v, f.out, f.lse, f.random, f.seed, context->boundaries,
                            context->rotary.cos, context->rotary.sin});
    ctx->saved_data["head_dim"] = head_dim;
    ctx->saved_data["longest"] = context->longest();
    return f.out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("attention backward");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &boundaries = saved[7];
    const int64_t d = ctx->saved_data["head_dim"].toInt(),
                  longest = ctx->saved_data["longest"].toInt();
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        by_heads(gradients[0].contiguous(), d), by_heads(q, d), by_heads(k, d), by_heads(v, d),
        by_heads(saved[3], d), saved[4], boundaries, boundaries, longest, longest, 0.0, true,
        saved[5], saved[6], scale_of(d));
    const RotaryTable table{saved[8], saved[9]};
    return {rotate(dq.reshape(q.sizes()), table, true), rotate(dk.reshape(k.sizes()), table, true),
            dv.reshape(v.sizes()), Variable(), Variable()};
  }
};

}  // namespace

bool has_fused_attention(const at::Tensor& q, const AttentionShape& shape) {
  return q.is_cuda() && q.scalar_type() != at::kFloat && shape.head_dim % 8 == 0 &&
         shape.head_dim <= 256;
}

at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionShape& shape, const AttentionContext& context) {
  if (at::GradMode::is_enabled())
    return FusedAttentionNode::apply(q, k, v, shape.head_dim, &context);
  return attend(rotate(q, context.rotary, false), rotate(k, context.rotary, false), v,
                shape.head_dim, context)
      .out;
}

}  // namespace qlora::model
