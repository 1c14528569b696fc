#include "model/alibi.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <vector>

#include "tests/support/small_models.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {
using nlohmann::json;
using testing::ElementsAreArray;

// 2^-exponent of each.
std::vector<float> halvings(const std::vector<double>& exponents) {
  std::vector<float> values;
  for (const double e : exponents) values.push_back(static_cast<float>(std::exp2(-e)));
  return values;
}

TEST(AlibiSlopes, OfAPowerOfTwoAreOneGeometricSequence) {
  EXPECT_THAT(alibi_slopes(8), ElementsAreArray(halvings({1, 2, 3, 4, 5, 6, 7, 8})));
  EXPECT_THAT(alibi_slopes(2), ElementsAreArray(halvings({4, 8})));
  EXPECT_THAT(alibi_slopes(1), ElementsAreArray(halvings({8})));
}

TEST(AlibiSlopes, OfSixHeadsAreThoseOfFourAndEveryOtherOfEight) {
  EXPECT_THAT(alibi_slopes(6), ElementsAreArray(halvings({2, 4, 6, 8, 1, 3})));
}

// As MPT's program says it: 2^(-8 i / n) of the next power of two n, from the second on every
// other one, then from the first on.
TEST(AlibiSlopes, AreMptsForAnyNumberOfHeads) {
  for (int64_t heads = 1; heads <= 130; ++heads) {
    const auto n = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(heads)));
    std::vector<double> exponents;
    for (const int64_t first : {2, 1})
      for (int64_t i = first; i <= n && std::ssize(exponents) < heads; i += 2)
        exponents.push_back(8.0 * static_cast<double>(i) / static_cast<double>(n));
    std::vector<float> wanted = halvings(exponents);
    if (n == heads) std::ranges::sort(wanted, std::ranges::greater{});  // all, in their order
    EXPECT_THAT(alibi_slopes(heads), ElementsAreArray(wanted)) << heads;
  }
}

TEST(AlibiBiases, AreTheSlopeTimesThePositionTimesTheScale) {
  const at::Tensor biases = alibi_biases({.slopes = {0.5f, 0.125f}, .scale = 4}, 3, at::kCPU);
  EXPECT_EQ(biases.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(biases, at::tensor({0.f, 2.f, 4.f, 0.f, 0.5f, 1.f}).view({2, 3})));
}

// To nearest and ties to even, on the bits.
float in_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

TEST(AlibiBiases, AreRoundedToBfloat16BeforeTheyAreScaled) {
  const AlibiSpec falcon{.slopes = alibi_slopes(12), .scale = 0.25f, .rounds_to_bfloat16 = true};
  const at::Tensor biases = alibi_biases(falcon, 600, at::kCPU);
  int64_t differing = 0;
  for (int64_t head = 0; head < 12; ++head)
    for (int64_t p = 0; p < 600; ++p) {
      const float slope = falcon.slopes[static_cast<size_t>(head)];
      const auto position = static_cast<float>(p);
      const float product = in_bfloat16(in_bfloat16(slope) * in_bfloat16(position));
      ASSERT_EQ(biases[head][p].item<float>(), product * 0.25f) << head << ", " << p;
      differing += product != slope * position;
    }
  EXPECT_GT(differing, 1000);  // else these numbers could not tell
}

TEST(Alibi, IsAsEachFamilyHasIt) {
  const auto read = [](const json& config) { return test::described(config).alibi; };
  const std::vector<float> six = alibi_slopes(6);
  const AlibiSpec bloom = read({{"model_type", "bloom"}, {"hidden_size", 96}, {"n_head", 6}});
  EXPECT_THAT(bloom.slopes, ElementsAreArray(six));
  EXPECT_EQ(bloom.scale, 1);
  EXPECT_FALSE(bloom.rounds_to_bfloat16);
  const AlibiSpec mpt = read({{"model_type", "mpt"}, {"d_model", 96}, {"n_heads", 6}});
  EXPECT_THAT(mpt.slopes, ElementsAreArray(six));
  EXPECT_FALSE(mpt.rounds_to_bfloat16);
  const AlibiSpec falcon = read({{"model_type", "falcon"},
                                 {"alibi", true},
                                 {"hidden_size", 96},
                                 {"num_attention_heads", 6},
                                 {"multi_query", false},
                                 {"parallel_attn", false}});
  EXPECT_THAT(falcon.slopes, ElementsAreArray(six));
  EXPECT_EQ(falcon.scale, 0.25f);  // 1 / sqrt(16): it is added before scores are scaled
  EXPECT_TRUE(falcon.rounds_to_bfloat16);
  EXPECT_FALSE(read({{"model_type", "gpt2"}}).present());
}

TEST(Alibi, ALongerDocumentThanThoseBeforeHasItsBiasesToo) {
  const test::SmallModel small = test::small_bloom();
  const auto used = small.load(), fresh = small.load();
  at::NoGradGuard no_grad;
  used->hidden(test::tiny_input({10}));
  EXPECT_TRUE(at::equal(used->hidden(test::tiny_input({300, 7})),
                        fresh->hidden(test::tiny_input({300, 7}))));
}

// Biases that grow with the key's position differ by a constant from those by distance: what lies
// before a document in its row changes nothing.
TEST(Alibi, CountsFromTheStartOfEachDocument) {
  const auto model = test::small_bloom().load();
  at::NoGradGuard no_grad;
  const ForwardInput packed = test::tiny_input({9, 21});
  ForwardInput alone;
  alone.tokens.assign(packed.tokens.begin() + 9, packed.tokens.end());
  alone.positions.assign(packed.positions.begin() + 9, packed.positions.end());
  alone.cu_seqlens = {0, 21};
  EXPECT_TRUE(
      at::allclose(model->hidden(alone), model->hidden(packed).narrow(0, 9, 21), 1e-5, 1e-5));
}

}  // namespace
}  // namespace qlora::model
