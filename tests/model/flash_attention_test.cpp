#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/parallel_for.h"
#include "model/attention.h"

namespace qlora::model {
namespace {

struct Case {
  AttentionShape shape;
  std::vector<int32_t> cu_seqlens;
};

struct Pass {
  at::Tensor out, dq, dk, dv;
};

Pass pass(const Case& c, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
          const at::Tensor& d_out) {
  const at::Tensor lq = q.clone().requires_grad_(), lk = k.clone().requires_grad_(),
                   lv = v.clone().requires_grad_();
  const AttentionContext context{c.cu_seqlens};
  const at::Tensor out = attention({lq, lk, lv}, c.shape, nullptr, context, 0);
  out.backward(d_out);
  return {out.detach(), lq.grad(), lk.grad(), lv.grad()};
}

// The definition, document by document, in double.
Pass definition(const Case& c, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                const at::Tensor& d_out) {
  const at::Tensor lq = q.to(at::kDouble).requires_grad_(), lk = k.to(at::kDouble).requires_grad_(),
                   lv = v.to(at::kDouble).requires_grad_();
  const int64_t dim = c.shape.head_dim, group = c.shape.heads / c.shape.kv_heads;
  std::vector<at::Tensor> parts;
  for (size_t d = 0; d + 1 < c.cu_seqlens.size(); ++d) {
    const int64_t begin = c.cu_seqlens[d], length = c.cu_seqlens[d + 1] - begin;
    const auto heads = [&](const at::Tensor& x) {
      return x.narrow(0, begin, length).view({length, -1, dim}).permute({1, 0, 2});
    };
    const at::Tensor scores =
        at::matmul(heads(lq), heads(lk).repeat_interleave(group, 0).transpose(1, 2)) /
        std::sqrt(static_cast<double>(dim));
    const at::Tensor hidden = at::ones({length, length}, at::kBool).triu(1);
    const at::Tensor p = scores.masked_fill(hidden, -1e300).softmax(-1);
    parts.push_back(at::matmul(p, heads(lv).repeat_interleave(group, 0))
                        .permute({1, 0, 2})
                        .reshape({length, -1}));
  }
  const at::Tensor out = at::cat(parts, 0);
  out.backward(d_out.to(at::kDouble));
  return {out.detach(), lq.grad(), lk.grad(), lv.grad()};
}

double cosine(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble).flatten(), y = b.to(at::kDouble).flatten();
  return (x.dot(y) / (x.norm() * y.norm())).item<double>();
}

struct Inputs {
  at::Tensor q, k, v, d_out;
};

Inputs random_inputs(const Case& c) {
  const auto random = [&](int64_t heads) {
    return at::randn({c.cu_seqlens.back(), heads * c.shape.head_dim}).to(at::kBFloat16);
  };
  return {random(c.shape.heads), random(c.shape.kv_heads), random(c.shape.kv_heads),
          random(c.shape.heads)};
}

// Probabilities and score gradients pass through bf16 (2^-9 each, at random): a vector of them
// keeps its direction to 1 - 2^-18 and its length to about 2^-9.
void expect_equal(const Pass& found, const Pass& wanted) {
  for (const auto& [f, w] : {std::pair(found.out, wanted.out), std::pair(found.dq, wanted.dq),
                             std::pair(found.dk, wanted.dk), std::pair(found.dv, wanted.dv)}) {
    EXPECT_GT(cosine(f, w), 0.99998);
    EXPECT_NEAR((f.to(at::kDouble).norm() / w.norm()).item<double>(), 1.0, 2e-3);
  }
}

class FlashAttention : public testing::TestWithParam<Case> {};

TEST_P(FlashAttention, OutputAndGradientsAreTheDefinitions) {
  const Case& c = GetParam();
  const auto [q, k, v, d_out] = random_inputs(c);
  expect_equal(pass(c, q, k, v, d_out), definition(c, q, k, v, d_out));
}

// Scores grow along the row, by 8 in all: the softmax's sums so far shrink at almost every block.
TEST_P(FlashAttention, AMaximumMayComeLate) {
  const Case& c = GetParam();
  auto [q, k, v, d_out] = random_inputs(c);
  const int64_t tokens = q.size(0);
  const double most = 16.0 / std::sqrt(static_cast<double>(c.shape.head_dim));
  q += 0.5;
  k += (at::arange(tokens) * (most / static_cast<double>(tokens))).unsqueeze(1).to(at::kBFloat16);
  expect_equal(pass(c, q, k, v, d_out), definition(c, q, k, v, d_out));
}

TEST_P(FlashAttention, TheBitsDoNotDependOnTheNumberOfThreads) {
  const Case& c = GetParam();
  const auto [q, k, v, d_out] = random_inputs(c);
  const int before = num_threads();
  std::vector<Pass> passes;
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    passes.push_back(pass(c, q, k, v, d_out));
  }
  set_num_threads(before);
  for (const Pass& p : passes) {
    EXPECT_TRUE(at::equal(p.out, passes[0].out));
    EXPECT_TRUE(at::equal(p.dq, passes[0].dq));
    EXPECT_TRUE(at::equal(p.dk, passes[0].dk));
    EXPECT_TRUE(at::equal(p.dv, passes[0].dv));
  }
}

TEST_P(FlashAttention, ADocumentDoesNotNoticeItsNeighbours) {
  const Case& c = GetParam();
  const auto [q, k, v, d_out] = random_inputs(c);
  const Pass whole = pass(c, q, k, v, d_out);
  for (size_t d = 0; d + 1 < c.cu_seqlens.size(); ++d) {
    const int64_t begin = c.cu_seqlens[d], length = c.cu_seqlens[d + 1] - begin;
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, begin, length).contiguous(); };
    const Pass alone =
        pass({c.shape, {0, static_cast<int32_t>(length)}}, part(q), part(k), part(v), part(d_out));
    EXPECT_TRUE(at::equal(alone.out, part(whole.out)));
    EXPECT_TRUE(at::equal(alone.dq, part(whole.dq)));
    EXPECT_TRUE(at::equal(alone.dk, part(whole.dk)));
    EXPECT_TRUE(at::equal(alone.dv, part(whole.dv)));
  }
}

TEST(FlashAttentionNan, AScoreThatIsNoNumberIsNotHidden) {
  const AttentionShape shape = causal_attention(1, 1, 16);
  const at::Tensor k = at::randn({70, 16}).to(at::kBFloat16);
  at::Tensor q = k.clone();
  q[65][3] = NAN;
  const AttentionContext context{{0, 70}};
  at::NoGradGuard no_grad;
  const at::Tensor out = attention({q, k, k}, shape, nullptr, context, 0);
  EXPECT_TRUE(at::isnan(out[65]).all().item<bool>());
  EXPECT_EQ(at::isnan(out).sum().item<int64_t>(), 16);
}

// The long ones have several blocks of keys in a chunk of the backward pass.
INSTANTIATE_TEST_SUITE_P(Shapes, FlashAttention,
                         testing::Values(Case{causal_attention(4, 2, 16), {0, 3}},
                                         Case{causal_attention(9, 3, 64), {0, 130}},
                                         Case{causal_attention(2, 2, 64), {0, 64, 65, 129, 256}},
                                         Case{causal_attention(4, 1, 128), {0, 33, 100}},
                                         Case{causal_attention(3, 3, 80), {0, 77}},
                                         Case{causal_attention(6, 2, 48), {0, 5, 10, 200}},
                                         Case{causal_attention(3, 1, 64), {0, 1100}},
                                         Case{causal_attention(2, 1, 128), {0, 40, 1090}},
                                         Case{causal_attention(1, 1, 32), {0, 2100}},
                                         Case{causal_attention(2, 1, 256), {0, 150}},
                                         Case{causal_attention(2, 2, 96), {0, 17, 49, 97}}),
                         [](const auto& info) { return "case" + std::to_string(info.index); });

}  // namespace
}  // namespace qlora::model
