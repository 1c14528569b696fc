#include "quant/gptq/gptq_quantize.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "base/error.h"
#include "quant/gptq/gptq_pack.h"

namespace qlora::quant {
namespace {

GptqOptions options_of(int bits, int64_t group_size, GptqOrder order = GptqOrder::kPlain,
                       bool symmetric = true) {
  GptqOptions options;
  options.bits = bits;
  options.group_size = group_size;
  options.order = order;
  options.symmetric = symmetric;
  return options;
}

// A weight and inputs that are correlated and of different sizes, as behind a norm.
struct Example {
  at::Tensor weight, x;

  at::Tensor hessian() const {
    GptqHessian sum(x.size(1));
    sum.add(x);
    return sum.matrix();
  }
};

Example example(int64_t in = 160, int64_t out = 96, int64_t tokens = 1024) {
  at::manual_seed(1);
  const at::Tensor mix = at::randn({in, in}) / std::sqrt(static_cast<double>(in));
  const at::Tensor size = at::exp(0.8 * at::randn({in}));
  const at::Tensor shared = at::matmul(at::randn({tokens, in / 4}), mix.narrow(0, 0, in / 4));
  const at::Tensor own = 0.3 * at::randn({tokens, in});
  return {0.05 * at::randn({out, in}), (shared + own) * size};
}

at::Tensor decoded(const GroupedTensor& weight) {
  at::Tensor rows = at::empty({weight.rows(), weight.in}, at::kFloat);
  dequantize_grouped(weight, 0, weight.rows(), rows);
  return rows;
}

GroupedTensor quantized(const Example& of, const GptqOptions& options) {
  return gptq_quantize(of.weight, gptq_factor(of.hessian(), options, "m"), options, "m");
}

// Sum of |(W' - W) x|^2 over that of |W x|^2.
double output_error(const Example& of, const at::Tensor& values) {
  const at::Tensor x = of.x.to(at::kDouble).t(), w = of.weight.to(at::kDouble);
  return (at::matmul(values.to(at::kDouble) - w, x).square().sum() /
          at::matmul(w, x).square().sum())
      .item<double>();
}

double output_error(const Example& of, const GptqOptions& options) {
  return output_error(of, decoded(quantized(of, options)));
}

bool same(const GroupedTensor& a, const GroupedTensor& b) {
  return at::equal(decoded(a), decoded(b)) && at::equal(a.codes, b.codes) &&
         at::equal(a.scales, b.scales);
}

TEST(Gptq, OutputsAreTwiceAsNearAsThoseOfRoundingToNearest) {
  const Example of = example();
  for (const auto& [bits, symmetric] :
       {std::pair(4, true), std::pair(3, true), std::pair(2, false)}) {
    const double nearest =
        output_error(of, decoded(round_to_nearest(
                             of.weight, options_of(bits, 32, GptqOrder::kPlain, symmetric), "m")));
    const auto share = [&, bits = bits, symmetric = symmetric](GptqOrder order) {
      return output_error(of, options_of(bits, 32, order, symmetric)) / nearest;
    };
    const double plain = share(GptqOrder::kPlain), groups = share(GptqOrder::kGroups),
                 activations = share(GptqOrder::kActivations);
    EXPECT_LT(plain, 0.6) << bits;
    EXPECT_LT(groups, 0.52) << bits;
    EXPECT_LT(activations, 0.42) << bits;
    EXPECT_LT(activations, groups);
    EXPECT_LT(groups, plain);
  }
}

TEST(Gptq, AWholeRowMayShareOneScale) {
  const Example of = example();
  const GptqOptions options = options_of(4, -1, GptqOrder::kGroups);
  const GroupedTensor result = quantized(of, options);
  EXPECT_EQ(result.groups(), 1);
  EXPECT_EQ(result.group_size, 160);
  EXPECT_FALSE(result.group_of.defined());
  EXPECT_LT(output_error(of, decoded(result)),
            0.6 * output_error(of, decoded(round_to_nearest(of.weight, options, "m"))));
}

TEST(Gptq, StaticGroupsAreOfNeighbouringColumnsInAnyOrder) {
  const Example of = example();
  GptqOptions options = options_of(4, 32, GptqOrder::kActivations);
  options.static_groups = true;
  const GroupedTensor result = quantized(of, options);
  EXPECT_FALSE(result.group_of.defined());
  EXPECT_TRUE(at::equal(result.scales, round_to_nearest(of.weight, options, "m").scales));
  EXPECT_LT(output_error(of, decoded(result)),
            0.42 * output_error(of, decoded(round_to_nearest(of.weight, options, "m"))));
}

TEST(Gptq, ASearchForRangesLowersTheErrorOfTheWeights) {
  const Example of = example();
  GptqOptions options = options_of(3, 32);
  const double full = (decoded(round_to_nearest(of.weight, options, "m")) - of.weight)
                          .square()
                          .sum()
                          .item<double>();
  options.mse = 2.0;
  const double searched = (decoded(round_to_nearest(of.weight, options, "m")) - of.weight)
                              .square()
                              .sum()
                              .item<double>();
  EXPECT_LT(searched, 0.95 * full);
}

TEST(Gptq, UncorrelatedInputsGiveRoundingToNearest) {
  Example of = example();
  for (const GptqOrder order : {GptqOrder::kPlain, GptqOrder::kGroups}) {
    const GptqOptions options = options_of(4, 32, order);
    const GroupedTensor nearest = round_to_nearest(of.weight, options, "m");
    const GptqFactor equal = gptq_factor(2 * at::eye(160), options, "m");
    EXPECT_TRUE(same(gptq_quantize(of.weight, equal, options, "m"), nearest));
    // Inputs of different sizes change the order alone, to which nothing is corrected.
    const GptqFactor apart = gptq_factor(at::diag(at::rand({160}) + 0.1), options, "m");
    EXPECT_TRUE(same(gptq_quantize(of.weight, apart, options, "m"), nearest));
  }
}

// One column after the other, in double, with the inverse itself.
at::Tensor column_by_column(const Example& of, const GptqOptions& options) {
  at::Tensor h = of.hessian().to(at::kDouble);
  h.diagonal().add_(options.damp * h.diagonal().mean());
  const at::Tensor upper = at::linalg_cholesky(at::linalg_inv(h)).t();
  const GroupedTensor nearest = round_to_nearest(of.weight, options, "m");  // for its scales
  const at::Tensor scale = nearest.scales.to(at::kDouble).select(1, 0);
  at::Tensor w = of.weight.to(at::kDouble).clone(), result = at::empty_like(w);
  const double zero = nearest.zero, most = (1 << options.bits) - 1;
  for (int64_t i = 0; i < w.size(1); ++i) {
    const at::Tensor column = w.select(1, i).clone();
    const at::Tensor codes = (at::round(column / scale) + zero).clamp(0, most);
    result.select(1, i).copy_((codes - zero) * scale);
    const at::Tensor error = (column - result.select(1, i)) / upper[i][i];
    w.sub_(at::outer(error, upper[i]));
  }
  return result;
}

TEST(Gptq, BlocksOfColumnsGiveWhatColumnByColumnGives) {
  const Example of = example(300, 40, 600);  // three blocks, the last one short
  const GptqOptions options = options_of(4, -1);
  const at::Tensor expected = column_by_column(of, options),
                   found = decoded(quantized(of, options));
  const double different = (found - expected).abs().gt(1e-4).to(at::kDouble).mean().item<double>();
  // Float32 may round a weight between two codes otherwise, and what follows in its row.
  EXPECT_LT(different, 0.1);
  EXPECT_NEAR(output_error(of, found), output_error(of, expected),
              0.02 * output_error(of, expected));
}

TEST(Gptq, ColumnsWithoutInputsBecomeZero) {
  Example of = example();
  of.x.select(1, 7).zero_();
  of.x.select(1, 159).zero_();
  for (const bool symmetric : {true, false})
    for (const GptqOrder order : {GptqOrder::kPlain, GptqOrder::kGroups, GptqOrder::kActivations}) {
      const at::Tensor values = decoded(quantized(of, options_of(4, 32, order, symmetric)));
      EXPECT_EQ(values.select(1, 7).abs().max().item<double>(), 0.0);
      EXPECT_EQ(values.select(1, 159).abs().max().item<double>(), 0.0);
      EXPECT_GT(values.select(1, 8).abs().max().item<double>(), 0.0);
    }
}

TEST(Gptq, FewerTokensThanColumnsAreEnough) {
  const Example of = example(160, 96, 20);  // the Hessian alone has no inverse
  EXPECT_LT(output_error(of, options_of(4, 32, GptqOrder::kGroups)),
            output_error(of, decoded(round_to_nearest(of.weight, options_of(4, 32), "m"))));
}

TEST(Gptq, OnlyActOrderHasGroupsThatAreNotNeighbours) {
  const Example of = example();
  EXPECT_FALSE(quantized(of, options_of(4, 32, GptqOrder::kGroups)).group_of.defined());
  const at::Tensor groups = quantized(of, options_of(4, 32, GptqOrder::kActivations)).group_of;
  ASSERT_TRUE(groups.defined());
  EXPECT_TRUE(at::equal(at::bincount(groups), at::full({5}, 32, at::kLong)));
  // The most important columns are in the first group.
  const at::Tensor first = at::argmax(of.x.square().sum(0));
  EXPECT_EQ(groups[first.item<int64_t>()].item<int64_t>(), 0);
}

TEST(GptqHessian, IsTheMeanOverAllTokensHoweverTheyCome) {
  const Example of = example();
  GptqHessian parts(160);
  parts.add(of.x.narrow(0, 0, 100));
  parts.add(of.x.narrow(0, 100, 0));
  parts.add(of.x.narrow(0, 100, 924));
  EXPECT_EQ(parts.tokens(), 1024);
  const at::Tensor expected = at::matmul(of.x.t(), of.x) * (2.0 / 1024);
  EXPECT_TRUE(at::allclose(parts.matrix(), expected, 1e-4, 1e-4));
  EXPECT_EQ(GptqHessian(3).matrix().abs().sum().item<double>(), 0.0);
}

TEST(GptqFactor, IsTheUpperFactorOfTheDampedInverse) {
  const Example of = example();
  const GptqOptions options = options_of(4, 32);
  const GptqFactor factor = gptq_factor(of.hessian(), options, "m");
  at::Tensor damped = of.hessian().to(at::kDouble);
  damped.diagonal().add_(options.damp * damped.diagonal().mean());
  const at::Tensor upper = factor.upper.to(at::kDouble);
  EXPECT_TRUE(at::equal(upper, upper.triu()));
  EXPECT_TRUE(at::allclose(at::matmul(at::matmul(upper.t(), upper), damped),
                           at::eye(160, at::kDouble), 1e-2, 1e-2));
}

TEST(GptqFactor, InputsThatAreNotFiniteAreRefusedByTheModule) {
  at::Tensor hessian = example().hessian();
  hessian[3][3] = NAN;
  try {
    gptq_factor(hessian, options_of(4, 32), "layer.7");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("layer.7"), std::string::npos);
  }
}

// Code `index` of a stream of bits that runs down the words of a column.
int64_t field(const at::Tensor& words, int64_t column, int64_t index, int bits) {
  int64_t value = 0;
  for (int bit = 0; bit < bits; ++bit) {
    const int64_t place = index * bits + bit;
    const auto word = static_cast<uint32_t>(words[place / 32][column].item<int64_t>());
    value |= static_cast<int64_t>(word >> (place % 32) & 1u) << bit;
  }
  return value;
}

TEST(GptqPack, FilesDecodeToTheSameValues) {
  const Example of = example(44, 12, 200);  // nothing divides by 32
  for (const int bits : {2, 3, 4, 8})
    for (const bool symmetric : {true, false})
      for (const GptqOrder order : {GptqOrder::kGroups, GptqOrder::kActivations}) {
        const GroupedTensor weight = quantized(of, options_of(bits, 16, order, symmetric));
        std::map<std::string, at::Tensor> files;
        for (const auto& [name, tensor] : gptq_pack(weight)) files[name] = tensor;
        const int64_t words_in = (44 * bits + 31) / 32, words_out = (12 * bits + 31) / 32;
        EXPECT_EQ(files.at("qweight").sizes(), at::IntArrayRef({words_in, 12}));
        EXPECT_EQ(files.at("qzeros").sizes(), at::IntArrayRef({3, words_out}));
        EXPECT_EQ(files.at("scales").sizes(), at::IntArrayRef({3, 12}));
        EXPECT_EQ(files.at("g_idx").sizes(), at::IntArrayRef({44}));
        EXPECT_EQ(files.at("g_idx").scalar_type(), at::kInt);
        const at::Tensor zero_words = files.at("qzeros").t();
        const int64_t less_one = symmetric ? 1 : 0;  // v1 and v2
        at::Tensor values = at::empty({12, 44}, at::kFloat);
        for (int64_t o = 0; o < 12; ++o)
          for (int64_t i = 0; i < 44; ++i) {
            const auto group = files.at("g_idx")[i].item<int64_t>();
            const int64_t zero = field(zero_words, group, o, bits) + less_one;
            const int64_t code = field(files.at("qweight"), o, i, bits);
            values[o][i] = static_cast<float>(code - zero) *
                           files.at("scales")[group][o].to(at::kFloat).item<float>();
          }
        EXPECT_TRUE(at::equal(values, decoded(weight))) << bits << " bits, " << symmetric;
      }
}

TEST(GptqOptions, ValuesThatTheFormatDoesNotHaveAreRefused) {
  for (const int bits : {0, 1, 5, 16}) EXPECT_THROW(options_of(bits, 32).validate(), ConfigError);
  for (const int64_t size : {0, -2, 4, 100})
    EXPECT_THROW(options_of(4, size).validate(), ConfigError);
  GptqOptions options;
  EXPECT_NO_THROW(options.validate());
  options.damp = 0;
  EXPECT_THROW(options.validate(), ConfigError);
  options.damp = 0.01;
  options.mse = 0.5;
  EXPECT_THROW(options.validate(), ConfigError);
  options.mse = 0;
  options.static_groups = true;
  options.group_size = -1;
  EXPECT_THROW(options.validate(), ConfigError);
}

}  // namespace
}  // namespace qlora::quant
