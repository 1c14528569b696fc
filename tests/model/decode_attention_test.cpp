// Attention of few new tokens of each sequence over its cached keys and values.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "model/attention_kernels.h"
#include "model/element_pointer.h"
#include "model/kv_cache.h"

namespace qlora::model {
namespace {

using ::testing::HasSubstr;

struct Sizes {
  int64_t heads, kv_heads, head_dim, length;
};

at::Tensor attended(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sizes& s,
                    float scale) {
  at::Tensor out = at::empty_like(q);
  with_elements(out, [&](auto* y) {
    using T = ElementOf<decltype(y)>;
    const cpu::DecodeRow<T> row{elements<T>(q), elements<T>(k), elements<T>(v), y, s.length};
    cpu::decode_attention(&row, 1, s.heads, s.kv_heads, s.head_dim, {scale});
  });
  return out;
}

class DecodeAttention : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(DecodeAttention, IsTheSoftmaxOverAllKeysOfItsGroup) {
  const double u = std::exp2(-24);
  const double of_result = GetParam() == at::kFloat      ? u
                           : GetParam() == at::kBFloat16 ? std::exp2(-8)
                                                         : std::exp2(-11);
  for (const Sizes& s : {Sizes{9, 3, 64, 1}, Sizes{4, 1, 128, 37}, Sizes{6, 2, 80, 200},
                         Sizes{2, 2, 96, 16}, Sizes{3, 3, 20, 33}}) {
    at::manual_seed(static_cast<uint64_t>(s.length));
    const at::Tensor q = at::randn({s.heads, s.head_dim}).to(GetParam());
    const at::Tensor k = at::randn({s.length, s.kv_heads, s.head_dim}).to(GetParam());
    const at::Tensor v = at::randn({s.length, s.kv_heads, s.head_dim}).to(GetParam());
    const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim));
    const at::Tensor y = attended(q, k, v, s, static_cast<float>(scale)).to(at::kDouble);
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t kv = head / (s.heads / s.kv_heads);
      const at::Tensor qd = q[head].to(at::kDouble), kd = k.select(1, kv).to(at::kDouble),
                       vd = v.select(1, kv).to(at::kDouble);
      const at::Tensor exact = at::softmax(kd.mv(qd) * scale, 0).matmul(vd);
      // A score is off by at most (d + 3) u Σ |q k| scale, a power of e by that and 2 ulp more, the
      // sum of the powers alike; a weighted mean of v then by twice as much of its largest, and by
      // its own L + 3 additions and products.
      const double of_score = (static_cast<double>(s.head_dim) + 3) * u * scale *
                              kd.abs().mv(qd.abs()).max().item<double>();
      const double of_mean = 2 * (of_score + 4 * u) + (2 * static_cast<double>(s.length) + 6) * u;
      const at::Tensor bound =
          exact.abs() * of_result + of_mean * vd.abs().amax(0) * (1 + of_result) + 1e-7 * of_result;
      EXPECT_TRUE((y[head] - exact).abs().le(bound).all().item<bool>())
          << "head " << head << " of " << s.heads << ", " << s.head_dim << " elements";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DecodeAttention,
                         ::testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& info) { return c10::toString(info.param); });

TEST(KvCache, NewTokensOfEachSequenceGoBehindWhatItHolds) {
  KvCache cache({8}, 2, 5, at::kFloat, at::kCPU);
  const at::Tensor first = at::randn({2, 8}), step = at::randn({4, 20});
  cache.append(0, 1, first, -first);
  cache.advance(1, 2);
  const at::Tensor k = step.narrow(1, 0, 8), v = step.narrow(1, 8, 8);  // rows of a wider matrix
  cache.append_each(0, {0, 1, 4}, k, v);
  EXPECT_TRUE(at::equal(cache.keys(0, 0, 1), k.narrow(0, 0, 1)));
  EXPECT_TRUE(at::equal(cache.values(0, 0, 1), v.narrow(0, 0, 1)));
  EXPECT_TRUE(at::equal(cache.keys(0, 1, 5), at::cat({first, k.narrow(0, 1, 3)})));
  EXPECT_TRUE(at::equal(cache.values(0, 1, 5), at::cat({-first, v.narrow(0, 1, 3)})));
}

TEST(KvCache, AFullSequenceIsNamed) {
  KvCache cache({8}, 2, 3, at::kFloat, at::kCPU);
  cache.advance(1, 2);
  try {
    cache.append_each(0, {0, 1, 3}, at::zeros({3, 8}), at::zeros({3, 8}));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("sequence 1 needs 4 tokens, there is room for 3"));
  }
}

}  // namespace
}  // namespace qlora::model
