#include "model/rotary.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"

namespace qlora::model {
namespace {

void expect_frequencies(const RopeConfig& rope, const std::vector<float>& expected,
                        int64_t length = 0) {
  const std::vector<float> found =
      inverse_frequencies(rope, static_cast<int64_t>(2 * expected.size()), length);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], 1e-6f * expected[i]) << rope.type << " " << i;
}

// The lists of numbers below: ROPE_INIT_FUNCTIONS[rope_type](config, "cpu", seq_len) of
// transformers 5.23 for heads of 16.

// With f = factor, the ramp r from floor(d ln(L0 / 2 pi beta_fast) / 2 ln theta) to the ceiling of
// the same with beta_slow: (1 - r) / theta^(2i/d) + r / (f theta^(2i/d)).
TEST(RopeFrequencies, OfYarn) {
  RopeConfig rope;
  rope.type = "yarn";
  rope.factor = 8;
  rope.original_max_positions = 512;
  expect_frequencies(rope, {1, 0.247052938f, 0.0562500022f, 0.01087033f, 0.00124999997f,
                            0.000395284733f, 0.000125000006f, 3.95284733e-05f});
}

TEST(RopeFrequencies, OfYarnBetweenWholeDimensions) {
  RopeConfig rope;
  rope.type = "yarn";
  rope.theta = 150000;
  rope.factor = 32;
  rope.original_max_positions = 4096;
  rope.truncate = false;
  expect_frequencies(rope, {1, 0.225418001f, 0.0508132726f, 0.00679495931f, 0.000456483918f,
                            1.8188337e-05f, 4.09997847e-06f, 9.24208962e-07f});
}

// theta' = theta (f L / Lmax - (f - 1))^(d / (d - 2)) where L > Lmax.
TEST(RopeFrequencies, OfDynamicScalingInsideAndBeyondTheContext) {
  RopeConfig rope;
  rope.type = "dynamic";
  rope.factor = 2;
  rope.original_max_positions = 128;
  const std::vector<float> unscaled = inverse_frequencies(RopeConfig{}, 16);
  EXPECT_EQ(inverse_frequencies(rope, 16, 100), unscaled);
  EXPECT_EQ(inverse_frequencies(rope, 16, 128), unscaled);
  expect_frequencies(rope,
                     {1, 0.262445003f, 0.0688773692f, 0.0180765204f, 0.004744092f, 0.00124506326f,
                      0.000326760608f, 8.57566774e-05f},
                     300);
}

RopeConfig longrope() {
  RopeConfig rope;
  rope.type = "longrope";
  rope.short_factor = {1, 1.1f, 1.2f, 1.3f, 1.4f, 1.5f, 1.6f, 1.7f};
  rope.long_factor = {1, 2, 3, 4, 5, 6, 7, 8.5f};
  rope.original_max_positions = 64;
  return rope;
}

// 1 / (factor_i theta^(2i/d)), the long factors where the length exceeds the original context.
TEST(RopeFrequencies, OfLongRopeInShortAndLongDocuments) {
  expect_frequencies(longrope(),
                     {1, 0.287479758f, 0.0833333358f, 0.0243252143f, 0.00714285718f, 0.00210818532f,
                      0.000624999986f, 0.000186016332f},
                     64);
  expect_frequencies(longrope(),
                     {1, 0.158113882f, 0.0333333351f, 0.00790569466f, 0.00200000009f,
                      0.00052704633f, 0.000142857141f, 3.72032664e-05f},
                     65);
}

TEST(RopeFrequencies, NumbersThatMakeNoneAreRefusedByName) {
  const auto complaint = [](const std::function<void(RotarySpec&)>& edit) -> std::string {
    RotarySpec spec{longrope(), 16};
    edit(spec);
    try {
      validate(spec, "config.json");
    } catch (const FormatError& error) {
      return error.what();
    }
    return "accepted";
  };
  using testing::HasSubstr;
  EXPECT_EQ(complaint([](RotarySpec&) {}), "accepted");
  EXPECT_THAT(complaint([](RotarySpec& s) { s.width = 7; }), HasSubstr("even"));
  EXPECT_THAT(complaint([](RotarySpec& s) { s.rope.short_factor.pop_back(); }),
              HasSubstr("short_factor"));
  EXPECT_THAT(complaint([](RotarySpec& s) { s.rope.long_factor[3] = 0; }),
              HasSubstr("long_factor"));
  EXPECT_THAT(complaint([](RotarySpec& s) { s.rope.attention_factor = 0; }),
              HasSubstr("attention_factor"));
  EXPECT_THAT(complaint([](RotarySpec& s) { s.rope.beta_slow = 0; }), HasSubstr("beta_slow"));
  EXPECT_THAT(complaint([](RotarySpec& s) { s.rope.beta_fast = 0.5; }), HasSubstr("beta_fast"));
  EXPECT_THAT(complaint([](RotarySpec& s) {
                s.rope.type = "dynamic";
                s.width = 2;
              }),
              HasSubstr("at least 4"));
}

// The frequencies of a document do not depend on what is packed beside it.
TEST(Rotary, EachDocumentHasTheFrequenciesOfItsLength) {
  RopeConfig dynamic;
  dynamic.type = "dynamic";
  dynamic.factor = 2;
  dynamic.original_max_positions = 64;
  for (const RopeConfig& rope : {longrope(), dynamic}) {
    const Rotary rotary({rope, 16}, 16, at::kCPU);
    std::vector<int32_t> positions, cu_seqlens = {0, 30, 30, 130, 194};  // the second is empty
    for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d)
      for (int32_t p = 0; p < cu_seqlens[d + 1] - cu_seqlens[d]; ++p) positions.push_back(p);
    const RotaryTable packed = rotary.at_positions(positions, cu_seqlens);
    for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
      const RotaryTable alone = rotary.at_positions(
          {positions.begin() + cu_seqlens[d], positions.begin() + cu_seqlens[d + 1]});
      const int64_t length = cu_seqlens[d + 1] - cu_seqlens[d];
      EXPECT_TRUE(at::equal(packed.cos.narrow(0, cu_seqlens[d], length), alone.cos));
      EXPECT_TRUE(at::equal(packed.sin.narrow(0, cu_seqlens[d], length), alone.sin));
    }
    const at::Tensor is_long = at::tensor(inverse_frequencies(rope, 16, 100));
    EXPECT_TRUE(at::equal(packed.sin[30 + 7], at::sin(7 * is_long)));
    EXPECT_FALSE(at::equal(packed.sin[7], packed.sin[30 + 7]));
  }
}

// A chunk of a longer document, whose earlier tokens are in the cache.
TEST(Rotary, ADocumentIsAsLongAsItsLargestPosition) {
  const Rotary rotary({longrope(), 16}, 16, at::kCPU);
  const at::Tensor is_long = at::tensor(inverse_frequencies(longrope(), 16, 65));
  EXPECT_TRUE(at::equal(rotary.at_positions({64}).cos[0], at::cos(64 * is_long)));
}

TEST(Rotary, TheAttentionFactorIsOfCosAndSin) {
  RopeConfig rope;
  rope.type = "yarn";
  const RotaryTable plain = Rotary({rope, 8}, 8, at::kCPU).at_positions({0, 3});
  rope.attention_factor = 1.25;
  const RotaryTable scaled = Rotary({rope, 8}, 8, at::kCPU).at_positions({0, 3});
  EXPECT_TRUE(at::equal(scaled.cos, plain.cos * 1.25));
  EXPECT_TRUE(at::equal(scaled.sin, plain.sin * 1.25));
}

// In double, element by element.
at::Tensor definition(const at::Tensor& x, const RotaryTable& table, int64_t head_dim,
                      bool inverse) {
  const at::Tensor y = x.to(at::kDouble).clone();
  const int64_t half = table.cos.size(1);
  for (int64_t t = 0; t < x.size(0); ++t)
    for (int64_t head = 0; head < x.size(1); head += head_dim)
      for (int64_t i = 0; i < half; ++i) {
        const int64_t first = head + (table.pairs ? 2 * i : i);
        const int64_t second = first + (table.pairs ? 1 : half);
        const auto a = x[t][first].item<double>(), b = x[t][second].item<double>();
        const auto c = table.cos[t][i].item<double>();
        const auto s = (inverse ? -1 : 1) * table.sin[t][i].item<double>();
        y[t][first] = a * c - b * s;
        y[t][second] = b * c + a * s;
      }
  return y;
}

TEST(Rotary, TurnsThePartAndThePairsThatTheSpecSays) {
  at::manual_seed(1);
  struct Case {
    int64_t head_dim, width;
    bool pairs;
  };
  for (const Case& c : {Case{16, 16, false}, Case{16, 16, true}, Case{20, 10, false},
                        Case{20, 10, true}, Case{80, 32, false}, Case{128, 96, true}}) {
    const Rotary rotary({{}, c.width, c.pairs}, c.head_dim, at::kCPU);
    const RotaryTable table = rotary.at_positions({0, 1, 17, 40, 1000});
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf})
      for (const bool inverse : {false, true}) {
        const at::Tensor all = at::randn({5, 3 * c.head_dim + 7}).to(type);
        const at::Tensor turned = all.clone();
        rotate(turned.narrow(1, 5, 3 * c.head_dim), table, inverse);
        const at::Tensor expected =
            definition(all.narrow(1, 5, 3 * c.head_dim), table, c.head_dim, inverse);
        const double step = type == at::kFloat ? 2e-7 : type == at::kHalf ? 5e-4 : 4e-3;
        EXPECT_TRUE(
            at::allclose(turned.narrow(1, 5, 3 * c.head_dim).to(at::kDouble), expected, step, 1e-6))
            << c.head_dim << " " << c.width << " " << c.pairs << " " << type;
        for (int64_t head = 0; head < 3; ++head) {  // the rest of a head, and what lies around
          const int64_t at = 5 + head * c.head_dim + c.width, rest = c.head_dim - c.width;
          EXPECT_TRUE(at::equal(turned.narrow(1, at, rest), all.narrow(1, at, rest)));
        }
        EXPECT_TRUE(at::equal(turned.narrow(1, 0, 5), all.narrow(1, 0, 5)));
      }
  }
}

TEST(Rotary, QueriesAndKeysTurnTogetherAsEachAlone) {
  at::manual_seed(2);
  for (const bool pairs : {false, true}) {
    const RotaryTable table =
        Rotary({{}, 12, pairs}, 16, at::kCPU).at_positions({0, 1, 17, 40, 1000});
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf})
      for (const bool inverse : {false, true}) {
        const at::Tensor all = at::randn({5, 4 * 16 + 3 + 2 * 16}).to(type);
        const at::Tensor together = all.clone(), alone = all.clone();
        rotate(together.narrow(1, 0, 64), together.narrow(1, 67, 32), table, inverse);
        rotate(alone.narrow(1, 0, 64), table, inverse);
        rotate(alone.narrow(1, 67, 32), table, inverse);
        EXPECT_TRUE(at::equal(together, alone)) << type;
        EXPECT_FALSE(at::equal(together.narrow(1, 67, 32), all.narrow(1, 67, 32)));
      }
  }
}

TEST(Rotary, QueriesAndKeysOfTwoTypesAreRefused) {
  const RotaryTable table = Rotary({{}, 8}, 8, at::kCPU).at_positions({0, 1});
  EXPECT_THROW(rotate(at::zeros({2, 16}), at::zeros({2, 8}, at::kHalf), table, false), Error);
  EXPECT_THROW(rotate(at::zeros({2, 16}), at::zeros({3, 8}), table, false), Error);
}

// <dy, R x> = <R' dy, x>, also where the scaling has a factor.
TEST(Rotary, TheInverseIsTheTransposedOfTheTurn) {
  RopeConfig rope;
  rope.type = "yarn";
  rope.attention_factor = 1.3;
  for (const bool pairs : {false, true}) {
    const RotaryTable table = Rotary({rope, 6, pairs}, 10, at::kCPU).at_positions({3, 900});
    const at::Tensor x = at::randn({2, 20}), dy = at::randn({2, 20});
    const double forward = (rotate(x.clone(), table, false) * dy).sum().item<double>();
    const double backward = (rotate(dy.clone(), table, true) * x).sum().item<double>();
    EXPECT_NEAR(forward, backward, 1e-5);
  }
}

TEST(Rotary, APartThatIsWiderThanTheHeadIsRefused) {
  EXPECT_THROW(Rotary({{}, 12}, 8, at::kCPU), Error);
  EXPECT_THROW(Rotary({{}, 5}, 8, at::kCPU), Error);
}

}  // namespace
}  // namespace qlora::model
