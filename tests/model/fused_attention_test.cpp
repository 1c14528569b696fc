#include "model/fused_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace qlora::model {
namespace {

constexpr int64_t kHeads = 3, kTokens = 7, kDim = 8;

struct Scores {
  at::Tensor q = at::randn({kHeads, kTokens, kDim}, at::kDouble).requires_grad_();
  at::Tensor k = at::randn({kHeads, kTokens, kDim}, at::kDouble).requires_grad_();
  at::Tensor v = at::randn({kHeads, kTokens, kDim}, at::kDouble).requires_grad_();
  at::Tensor sinks = at::linspace(-1, 2, kHeads, at::kDouble);
  at::Tensor values = at::matmul(q, k.transpose(1, 2))
                          .masked_fill(at::ones({kTokens, kTokens}, at::kBool).triu(1), -INFINITY);
};

// By the definition: one more column of scores, whose probability gives nothing.
at::Tensor with_sinks(const Scores& s) {
  const at::Tensor column = s.sinks.view({-1, 1, 1}).expand({kHeads, kTokens, 1});
  return at::matmul(at::softmax(at::cat({s.values, column}, 2), 2).narrow(2, 0, kTokens), s.v);
}

// [heads, tokens, dim] as the kernel has it, and back.
at::Tensor turned(const at::Tensor& x) { return x.transpose(0, 1).contiguous(); }

TEST(FusedAttention, SinksAreAddedToWhatTheKernelGaveWithoutThem) {
  const Scores s;
  const at::Tensor out = turned(at::matmul(at::softmax(s.values, 2), s.v).detach());
  const at::Tensor lse = at::logsumexp(s.values, 2).detach();
  const at::Tensor all = add_sinks(out, lse, s.sinks);
  EXPECT_TRUE(at::allclose(turned(out), with_sinks(s), 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(all.exp(), lse.exp() + s.sinks.exp().view({-1, 1}), 1e-12, 1e-12));
}

// FlashAttention's backward pass (Dao 2023, algorithm 2) reads nothing of the forward pass but
// `out` and the logarithms.
TEST(FusedAttention, TheKernelsBackwardPassIsThatOfSinksWithTheirOutputAndLogarithms) {
  const Scores s;
  const at::Tensor wanted = with_sinks(s), d_out = at::randn_like(wanted);
  wanted.backward(d_out);
  const at::Tensor out = turned(at::matmul(at::softmax(s.values, 2), s.v).detach());
  const at::Tensor lse = add_sinks(out, at::logsumexp(s.values, 2).detach(), s.sinks);
  const at::Tensor p = (s.values.detach() - lse.unsqueeze(2)).exp();
  const at::Tensor taken_off = (d_out * turned(out)).sum(2, true);
  const at::Tensor d_scores = p * (at::matmul(d_out, s.v.detach().transpose(1, 2)) - taken_off);
  EXPECT_TRUE(at::allclose(at::matmul(d_scores, s.k.detach()), s.q.grad(), 1e-12, 1e-12));
  EXPECT_TRUE(
      at::allclose(at::matmul(d_scores.transpose(1, 2), s.q.detach()), s.k.grad(), 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(at::matmul(p.transpose(1, 2), d_out), s.v.grad(), 1e-12, 1e-12));
}

}  // namespace
}  // namespace qlora::model
