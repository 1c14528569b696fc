// Adapters combined with weights: by hand on a module of a few numbers, and what must hold for any.
#include "lora/combine_adapters.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/seed.h"
#include "lora/adapter_file.h"
#include "lora/attach.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace qlora::lora {
namespace {
using ::testing::HasSubstr;

constexpr const char* kModule = "model.layers.0.mlp.up_proj";

at::Tensor row(const std::vector<float>& numbers) {
  return at::tensor(at::ArrayRef<float>(numbers), at::kFloat).unsqueeze(0);
}

at::Tensor hashed(int64_t rows, int64_t columns, uint64_t key) {
  at::Tensor values = at::empty({rows, columns}, at::kFloat);
  for (int64_t i = 0; i < values.numel(); ++i)
    values.mutable_data_ptr<float>()[i] = normal(key, static_cast<uint64_t>(i));
  return values;
}

// One module of rank 1 and output size 1: B is a single number. `scaling` through alpha.
PlainAdapter of_numbers(const std::vector<float>& a, float b, double scaling = 1) {
  PlainAdapter adapter{"by hand", {}, {}};
  adapter.options.rank = 1;
  adapter.options.alpha = scaling;
  adapter.factors[kModule] = {row(a), row({b})};
  return adapter;
}

PlainAdapter random_adapter(uint64_t seed, int64_t rank, double alpha, int64_t in = 24,
                            int64_t out = 20) {
  PlainAdapter adapter{"adapter " + std::to_string(seed), {}, {}};
  adapter.options.rank = rank;
  adapter.options.alpha = alpha;
  adapter.factors[kModule] = {hashed(rank, in, random_key(seed, "a")),
                              hashed(out, rank, random_key(seed, "b"))};
  return adapter;
}

CombineOptions by(const std::string& method, std::vector<double> weights,
                  std::optional<double> density = std::nullopt) {
  CombineOptions options;
  options.method = method;
  options.weights = std::move(weights);
  options.density = density;
  return options;
}

Factors combined(const std::vector<PlainAdapter>& adapters, const CombineOptions& options) {
  return combine_adapters(adapters, options).factors.at(kModule);
}

at::Tensor product(const PlainAdapter& adapter) {
  const Factors& factors = adapter.factors.at(kModule);
  return factors.b.mm(factors.a) * adapter.options.of_module(kModule).scaling();
}

void expect_numbers(const at::Tensor& found, const std::vector<float>& wanted) {
  const at::Tensor flat = found.contiguous().view({-1});
  ASSERT_EQ(flat.numel(), static_cast<int64_t>(wanted.size()));
  for (size_t i = 0; i < wanted.size(); ++i)
    EXPECT_FLOAT_EQ(flat[static_cast<int64_t>(i)].item<float>(), wanted[i]) << i;
}

TEST(CombineLinear, TheRootOfTheWeightGoesToEachFactorAndTheSignToA) {
  // c_1 = 2 * 2 = 4, root 2; c_2 = -9 * 1, root 3
  const auto found =
      combined({of_numbers({1, 2, 0}, 5, 2), of_numbers({1, 0, -1}, 2)}, by("linear", {2, -9}));
  expect_numbers(found.a, {2 - 3, 4, 3});
  expect_numbers(found.b, {10 + 6});
}

TEST(CombineLinear, OneAdapterOfWeightOneIsItselfWithItsScalingInTheFactors) {
  const PlainAdapter adapter = random_adapter(1, 4, 8);
  const auto found = combined({adapter}, by("linear", {1}));
  // Three roundings in fp32 a factor and sums of four products: some 1e-6 of numbers up to 20.
  EXPECT_TRUE(at::allclose(found.b.mm(found.a), product(adapter), 1e-5, 2e-5));
}

TEST(CombineCat, TheProductIsTheWeightedSumOfTheProducts) {
  PlainAdapter one = random_adapter(1, 4, 8), two = random_adapter(2, 6, 3);
  two.options.use_rslora = true;
  const auto found = combined({one, two}, by("cat", {0.7, -0.3}));
  EXPECT_EQ(found.a.size(0), 10);
  EXPECT_EQ(found.b.size(1), 10);
  const at::Tensor expected = product(one) * 0.7 + product(two) * -0.3;
  EXPECT_TRUE(at::allclose(found.b.mm(found.a), expected, 1e-5, 2e-5));
}

TEST(CombineMagnitudePrune, TheLargestShareStaysAndOfEqualOnesTheFirst) {
  // density 0.6 of 5 numbers keeps 3: -4, 3 and the first 1
  const auto found = combined({of_numbers({1, -4, 1, 0.5f, 3}, 7), of_numbers({0, 0, 0, 0, 0}, 0)},
                              by("magnitude_prune", {1, 1}, 0.6));
  expect_numbers(found.a, {1, -4, 0, 0, 3});
  // 0.6 of one number keeps none
  expect_numbers(found.b, {0});
}

TEST(CombineTies, TheMeanIsTakenOverThoseThatHaveTheElectedSign) {
  // Sums of the columns: 4 -> +, -3 -> -, 0 counts as +, 0 -> nobody has a sign.
  const auto found = combined({of_numbers({3, 1, 2, 0}, 1), of_numbers({1, -4, -2, 0}, 1)},
                              by("ties", {4, 9}, 1.0));
  expect_numbers(found.a, {(2 * 3 + 3 * 1) / 2.0f, 3 * -4, 2 * 2, 0});
  expect_numbers(found.b, {(2 + 3) / 2.0f});
}

TEST(CombineTies, FrequencyElectsByHeadsInsteadOfByMagnitude) {
  const std::vector<PlainAdapter> three = {of_numbers({5}, 1), of_numbers({-1}, 1),
                                           of_numbers({-2}, 1)};
  CombineOptions options = by("ties", {1, 1, 1}, 1.0);
  expect_numbers(combined(three, options).a, {5});
  options.majority_sign = "frequency";
  expect_numbers(combined(three, options).a, {-1.5});
}

// The election sees the numbers before their weights.
TEST(CombineTies, AWeightDoesNotChangeTheElection) {
  const auto found =
      combined({of_numbers({2}, 1), of_numbers({-1}, 1)}, by("ties", {0.01, 100}, 1.0));
  expect_numbers(found.a, {0.2f});
}

TEST(CombineDare, WithDensityOneItIsTheMethodWithoutDrawing) {
  const std::vector<PlainAdapter> two = {random_adapter(1, 4, 8), random_adapter(2, 4, 2)};
  const auto same = [&](const CombineOptions& one, const CombineOptions& other) {
    const Factors x = combined(two, one), y = combined(two, other);
    return at::equal(x.a, y.a) && at::equal(x.b, y.b);
  };
  EXPECT_TRUE(same(by("dare_linear", {0.7, 0.3}, 1.0), by("linear", {0.7, 0.3})));
  EXPECT_TRUE(same(by("dare_ties", {0.7, 0.3}, 1.0), by("ties", {0.7, 0.3}, 1.0)));
}

TEST(CombineDare, EachNumberIsZeroOrDividedByTheDensity) {
  const PlainAdapter adapter = random_adapter(3, 8, 8, 2500), zero = [] {
    PlainAdapter made = random_adapter(4, 8, 8, 2500);
    made.factors[kModule].a.zero_();
    return made;
  }();
  const at::Tensor before = adapter.factors.at(kModule).a;
  const at::Tensor after = combined({adapter, zero}, by("dare_linear", {1, 1}, 0.25)).a;
  const at::Tensor kept = after.ne(0);
  EXPECT_TRUE(at::equal(after, before / 0.25 * kept));
  // 20,000 draws: a deviation of sqrt(0.25 * 0.75 / 20000) = 0.0031; five of them.
  EXPECT_NEAR(kept.to(at::kFloat).mean().item<double>(), 0.25, 0.0155);
}

TEST(CombineDare, TheDrawIsThatOfSeedAdapterAndFactor) {
  const std::vector<PlainAdapter> twins = {random_adapter(5, 4, 4), random_adapter(5, 4, 4)};
  CombineOptions options = by("dare_linear", {1, -1}, 0.5);
  const Factors first = combined(twins, options);
  EXPECT_TRUE(at::equal(first.a, combined(twins, options).a));
  EXPECT_GT(first.a.abs().max().item<float>(), 0);  // the same mask would leave nothing
  options.seed = 1;
  EXPECT_FALSE(at::equal(first.a, combined(twins, options).a));
}

class CombineRefusal : public ::testing::Test {
 protected:
  static void expect_named(const std::vector<PlainAdapter>& adapters, const CombineOptions& options,
                           const std::string& named) {
    try {
      combine_adapters(adapters, options);
      ADD_FAILURE() << "combined in spite of " << named;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(named));
    }
  }
};

TEST_F(CombineRefusal, OtherRanksButForCat) {
  const std::vector<PlainAdapter> two = {random_adapter(1, 4, 8), random_adapter(2, 6, 8)};
  for (const char* method : {"ties", "dare_linear", "dare_ties", "magnitude_prune"})
    expect_named(two, by(method, {1, 1}, 0.5), kModule);
  expect_named(two, by("linear", {1, 1}), "rank");
}

TEST_F(CombineRefusal, OtherModulesOnEitherSide) {
  const PlainAdapter less = random_adapter(1, 4, 8);
  PlainAdapter more = random_adapter(2, 4, 8);
  more.factors["model.layers.1.mlp.up_proj"] = more.factors[kModule];
  expect_named({less, more}, by("cat", {1, 1}), "layers.1.mlp.up_proj");
  expect_named({more, less}, by("cat", {1, 1}), "layers.1.mlp.up_proj");
}

TEST_F(CombineRefusal, OptionsThatDoNotFit) {
  const std::vector<PlainAdapter> two = {random_adapter(1, 4, 8), random_adapter(2, 4, 8)};
  expect_named(two, by("svd", {1, 1}), "svd");
  expect_named(two, by("linear", {1}), "--weights");
  expect_named(two, by("linear", {1, NAN}), "--weights");
  expect_named(two, by("linear", {1, 1}, 0.5), "--density");
  expect_named(two, by("ties", {1, 1}), "--density");
  for (const double density : {0.0, -0.5, 1.5})
    expect_named(two, by("dare_ties", {1, 1}, density), "--density");
  expect_named({two[0]}, by("ties", {1}, 0.5), "two adapters");
  CombineOptions options = by("ties", {1, 1}, 0.5);
  options.majority_sign = "loudest";
  expect_named(two, options, "loudest");
}

class CombineFromDisk : public ::testing::Test {
 protected:
  void write(const std::string& name, LoraOptions options) {
    const auto model = test::tiny_model();
    AdapterSet adapters(options, model->groups(), at::kFloat, 1);
    for (const AdapterTensor& tensor : adapters.tensors())
      at::Tensor(tensor.value)
          .copy_(hashed(1, tensor.value.numel(), random_key(1, tensor.name))
                     .view(tensor.value.sizes()));
    std::filesystem::create_directories(dir / name);
    write_adapter(dir / name, adapters, options, {});
  }
  const test::TempDir dir;
};

TEST_F(CombineFromDisk, RanksAndScalesOfPatternsAreThoseOfEachModule) {
  LoraOptions options;
  options.rank = 4;
  options.alpha = 2;
  options.rank_pattern = {{"down_proj", 3}};
  options.alpha_pattern = {{"layers\\.1\\.mlp\\.down_proj", 12}};
  write("one", options);
  options.rank_pattern.clear();
  options.use_rslora = true;
  write("two", options);
  const auto model = test::tiny_model();
  const std::vector<PlainAdapter> two = {read_plain_adapter(dir / "one", model->groups()),
                                         read_plain_adapter(dir / "two", model->groups())};
  for (const LinearGroup* group : model->groups()) {
    EXPECT_FALSE(group->has_adapters());
    for (const LoraLinear& layer : group->layers()) EXPECT_EQ(layer.adapter, nullptr);
  }
  const CombinedAdapter cat = combine_adapters(two, by("cat", {0.5, 2}));
  const AdapterSet attached(cat.options, model->groups(), at::kFloat, 1, cat.factors);
  EXPECT_EQ(attached.num_modules(), 14);
  for (const LinearGroup* group : model->groups())
    for (const LoraLinear& layer : group->layers()) {
      const Factors &one = two[0].factors.at(layer.name), &other = two[1].factors.at(layer.name);
      const at::Tensor expected =
          one.b.mm(one.a) * (0.5 * two[0].options.of_module(layer.name).scaling()) +
          other.b.mm(other.a) * (2 * two[1].options.of_module(layer.name).scaling());
      const Adapter& adapter = *layer.adapter;
      EXPECT_EQ(adapter.rank, layer.name.ends_with("down_proj") ? 7 : 8) << layer.name;
      EXPECT_DOUBLE_EQ(adapter.scaling, 1) << layer.name;
      EXPECT_TRUE(at::allclose(adapter.b.mm(adapter.a), expected, 1e-5, 1e-4)) << layer.name;
    }
}

TEST_F(CombineFromDisk, AnAdapterThatDoesNotFitLeavesTheSlotsEmpty) {
  LoraOptions options;
  options.rank = 4;
  write("one", options);
  std::string config = test::read_file(dir / "one/adapter_config.json");
  const size_t rank = config.find("\"r\": 4");
  ASSERT_NE(rank, std::string::npos);
  dir.write("one/adapter_config.json", config.replace(rank, 6, "\"r\": 3"));
  const auto model = test::tiny_model();
  EXPECT_THROW(read_plain_adapter(dir / "one", model->groups()), FormatError);
  for (const LinearGroup* group : model->groups()) {
    EXPECT_FALSE(group->has_adapters());
    EXPECT_FALSE(group->anchor().defined());
    for (const LoraLinear& layer : group->layers()) EXPECT_EQ(layer.adapter, nullptr);
  }
}

TEST_F(CombineFromDisk, MagnitudesAreRefusedByName) {
  LoraOptions options;
  options.rank = 4;
  options.use_dora = true;
  write("dora", options);
  const auto model = test::tiny_model();
  try {
    read_plain_adapter(dir / "dora", model->groups());
    FAIL() << "read";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("DoRA"));
  }
}

TEST_F(CombineFromDisk, TrainedBiasesAreRefusedByName) {
  LoraOptions options;
  options.rank = 4;
  options.bias = "all";
  write("biased", options);
  const auto model = test::tiny_model();
  EXPECT_THROW(read_plain_adapter(dir / "biased", model->groups()), ConfigError);
}

}  // namespace
}  // namespace qlora::lora
