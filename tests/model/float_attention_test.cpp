// Attention in fp32 on every instruction set, against its definition in double.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/device.h"
#include "base/instruction_set.h"
#include "model/float_attention_kernels.h"

namespace qlora::model {
namespace {

constexpr InstructionSet kSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                    InstructionSet::kAvx512};

struct Case {
  int64_t heads, kv_heads, dim;
  std::vector<int64_t> lengths;
};
// Whole blocks; rests of blocks and of vectors; one token; heads that no vector divides.
const Case kCases[] = {{4, 2, 64, {128}}, {3, 3, 20, {1, 70, 33}}, {6, 2, 8, {200}}};

struct Tensors {
  at::Tensor q, k, v, d_out;
};
Tensors random_tensors(const Case& c) {
  int64_t tokens = 0;
  for (const int64_t length : c.lengths) tokens += length;
  const auto random = [&](int64_t heads) { return at::randn({tokens, heads * c.dim}); };
  return {random(c.heads), random(c.kv_heads), random(c.kv_heads), random(c.heads)};
}

struct Pass {
  at::Tensor out, lse, dq, dk, dv;
};

cpu::ConstFloatRows rows(const at::Tensor& t, int64_t dim) {
  return {t.const_data_ptr<float>(), t.stride(0), dim};
}
cpu::FloatRows out_rows(const at::Tensor& t, int64_t dim) {
  return {t.data_ptr<float>(), t.stride(0), dim};
}

cpu::FloatAttention attention_of(const Case& c, const Tensors& t) {
  cpu::FloatAttention a{rows(t.q, c.dim),
                        rows(t.k, c.dim),
                        rows(t.v, c.dim),
                        c.heads,
                        c.kv_heads,
                        c.dim,
                        {1.0f / std::sqrt(static_cast<float>(c.dim))},
                        {},
                        t.q.size(0)};
  int64_t begin = 0;
  for (const int64_t length : c.lengths) {
    a.documents.push_back({begin, length, begin, length});
    begin += length;
  }
  return a;
}

Pass pass(const Case& c, const Tensors& t) {
  const cpu::FloatAttention a = attention_of(c, t);
  // Every element must be written.
  const auto unset = [](const at::Tensor& like) { return at::full_like(like, NAN); };
  Pass p{unset(t.q), at::full({c.heads, t.q.size(0)}, NAN), unset(t.q), unset(t.k), unset(t.v)};
  cpu::float_attention(a, out_rows(p.out, c.dim), p.lse.data_ptr<float>());
  cpu::float_attention_backward(
      a, rows(p.out, c.dim), rows(t.d_out, c.dim), p.lse.const_data_ptr<float>(),
      {out_rows(p.dq, c.dim), out_rows(p.dk, c.dim), out_rows(p.dv, c.dim)});
  return p;
}

Pass definition(const Case& c, const Tensors& t) {
  const at::Tensor q = t.q.to(at::kDouble).requires_grad_(),
                   k = t.k.to(at::kDouble).requires_grad_(),
                   v = t.v.to(at::kDouble).requires_grad_();
  std::vector<at::Tensor> outs, sums;
  int64_t begin = 0;
  for (const int64_t length : c.lengths) {
    const auto heads = [&](const at::Tensor& x) {
      const at::Tensor y = x.narrow(0, begin, length).view({length, -1, c.dim}).permute({1, 0, 2});
      return y.repeat_interleave(c.heads / y.size(0), 0);
    };
    const at::Tensor scores =
        (at::matmul(heads(q), heads(k).transpose(1, 2)) / std::sqrt(static_cast<double>(c.dim)))
            .masked_fill(at::ones({length, length}, at::kBool).triu(1), -1e300);
    sums.push_back(scores.logsumexp(-1));
    outs.push_back(
        at::matmul(scores.softmax(-1), heads(v)).permute({1, 0, 2}).reshape({length, -1}));
    begin += length;
  }
  const at::Tensor out = at::cat(outs, 0);
  out.backward(t.d_out.to(at::kDouble));
  return {out.detach(), at::cat(sums, 1).detach(), q.grad(), k.grad(), v.grad()};
}

// Sums of at most some hundred fp32 terms of size 1 to 30, exponentials within 2e-7.
void expect_near(const at::Tensor& found, const at::Tensor& exact, const char* what) {
  const double difference = (found.to(at::kDouble) - exact).abs().max().item<double>();
  EXPECT_LT(difference, 3e-5) << what;
}

TEST(FloatAttention, OutputsAndGradientsAreThoseOfTheDefinition) {
  at::manual_seed(1);
  for (const Case& c : kCases) {
    const Tensors t = random_tensors(c);
    const Pass wanted = definition(c, t);
    for (const InstructionSet set : kSets) {
      const AtMost most(set);
      const Pass found = pass(c, t);
      expect_near(found.out, wanted.out, "out");
      expect_near(found.lse, wanted.lse, "lse");
      expect_near(found.dq, wanted.dq, "dq");
      expect_near(found.dk, wanted.dk, "dk");
      expect_near(found.dv, wanted.dv, "dv");
    }
  }
}

TEST(FloatAttention, BitsDoNotDependOnTheNumberOfThreads) {
  at::manual_seed(2);
  const Case c{6, 2, 32, {150, 20, 90}};
  const Tensors t = random_tensors(c);
  set_num_threads(1);
  const Pass one = pass(c, t);
  for (const int threads : {2, 5}) {
    set_num_threads(threads);
    const Pass more = pass(c, t);
    EXPECT_TRUE(at::equal(one.out, more.out) && at::equal(one.dq, more.dq) &&
                at::equal(one.dk, more.dk) && at::equal(one.dv, more.dv))
        << threads << " threads";
  }
  set_num_threads(0);
}

TEST(FloatAttention, QueriesAfterAPastGetWhatTheyGetAmongAllQueries) {
  at::manual_seed(3);
  for (const int64_t past : {1, 64, 77}) {
    const Case c{4, 2, 24, {140}};
    const Tensors t = random_tensors(c);
    const Pass whole = pass(c, t);
    const int64_t left = 140 - past;
    cpu::FloatAttention a = attention_of(c, t);
    const at::Tensor q = t.q.narrow(0, past, left), out = at::full_like(q, NAN);
    a.q = rows(q, c.dim);
    a.documents = {{0, left, 0, 140, past}};
    a.tokens = left;
    cpu::float_attention(a, out_rows(out, c.dim), nullptr);
    EXPECT_TRUE(at::allclose(out, whole.out.narrow(0, past, left), 1e-5, 1e-6)) << past;
  }
}

}  // namespace
}  // namespace qlora::model
