#include "quant/products/product_routes.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/instruction_set.h"
#include "quant/formats/gguf_weight.h"
#include "quant/make_frozen_weight.h"
#include "quant/planned_bytes.h"
#include "quant/products/summed_product.h"

namespace qlora::quant {
namespace {

constexpr WeightTraits kNf4{WeightKind::kDecoded, at::kBFloat16};
constexpr WeightTraits kGguf{WeightKind::kDecoded, at::kFloat};
constexpr WeightTraits kInt8{WeightKind::kInt8, at::kFloat};

WeightTraits stored(at::ScalarType dtype) { return {WeightKind::kStored, dtype}; }

struct Changes {
  bool sums = true;
  // Of the last layer.
  int64_t out = 96, in = 64, rank = 16;
  bool plain = true;
};

// Layers [out 96, in 64] with adapters of rank 16.
ProductFacts facts_of(const LeftOperand& left, const std::vector<WeightTraits>& weights,
                      const Changes& changes = {}) {
  ProductFacts facts{.left = left, .sums = changes.sums};
  for (const WeightTraits& weight : weights)
    facts.layers.push_back({.weight = weight, .out = 96, .in = 64, .rank = 16});
  LayerFacts& last = facts.layers.back();
  last.out = changes.out;
  last.in = changes.in;
  last.rank = changes.rank;
  last.plain = changes.plain;
  return facts;
}

constexpr Changes kNoSums{.sums = false}, kMagnitude{.plain = false}, kOddRank{.rank = 3};

std::string forward(const LeftOperand& left, const std::vector<WeightTraits>& weights,
                    const Changes& changes = {}) {
  return product_route(facts_of(left, weights, changes), Pass::kForward).name;
}
std::string backward(const LeftOperand& left, const std::vector<WeightTraits>& weights,
                     const Changes& changes = {}) {
  return product_route(facts_of(left, weights, changes), Pass::kBackward).name;
}

TEST(ProductRoutes, EachHasANameOfItsOwnAndTheLastSupportsAll) {
  std::set<std::string> names;
  for (const ProductRoute& route : product_routes()) EXPECT_TRUE(names.insert(route.name).second);
  for (const at::DeviceType device : {at::kCPU, at::kCUDA})
    for (const WeightTraits& weight : {kNf4, kInt8, stored(at::kHalf)})
      for (const Pass pass : {Pass::kForward, Pass::kBackward})
        EXPECT_TRUE(
            product_routes().back().supports(facts_of({device, at::kHalf, 0}, {weight}), pass));
}

TEST(ProductRoutes, InFloat32EveryTypeIsSummedAndAnyRank) {
  for (const auto set :
       {InstructionSet::kBaseline, InstructionSet::kAvx2, InstructionSet::kAvx512}) {
    const AtMost most(set);
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      SCOPED_TRACE(fmt::format("{} {}", to_string(set), c10::toString(dtype)));
      const LeftOperand x{at::kCPU, dtype, 64};
      const WeightTraits bfloat16 = stored(at::kBFloat16);
      EXPECT_EQ(forward(x, {kNf4, kNf4, kGguf}, kOddRank), "float32 sums");
      EXPECT_EQ(backward(x, {kNf4, kNf4, kGguf}), "float32 sums");
      EXPECT_EQ(forward({at::kCPU, dtype, 9}, {kNf4}), "float32 sums");
      EXPECT_EQ(forward(x, {kNf4, kGguf}, kNoSums), "joined rows in float32");
      EXPECT_EQ(backward(x, {kNf4, kGguf}, kNoSums), "joined rows in float32");
      EXPECT_EQ(forward(x, {kNf4}, kNoSums), "each layer in float32");
      EXPECT_EQ(forward(x, {kNf4, kNf4}, kMagnitude), "each layer in float32");
      EXPECT_EQ(forward(x, {bfloat16, kNf4}), "float32 sums");
      EXPECT_EQ(forward(x, {bfloat16, kNf4}, kNoSums), "each layer in float32");
      EXPECT_EQ(forward(x, {kInt8, kInt8}, kOddRank), "int8 sums");
      EXPECT_EQ(backward(x, {kInt8, kInt8}), "int8 sums");
      EXPECT_EQ(forward(x, {kInt8}, kNoSums), "int8 products in float32");
      EXPECT_EQ(forward(x, {kNf4, kInt8}), "int8 products in float32");
    }
    // A bfloat16 product rounds wider rows first.
    for (const at::ScalarType wide : {at::kFloat, at::kHalf}) {
      EXPECT_EQ(forward({at::kCPU, at::kBFloat16, 64}, {stored(wide)}), "each layer in float32");
      EXPECT_EQ(forward({at::kCPU, at::kFloat, 64}, {stored(wide)}), "float32 sums");
      EXPECT_EQ(forward({at::kCPU, at::kHalf, 64}, {stored(wide)}), "float32 sums");
    }
  }
}

// By this machine: with kernels of its own, with oneDNN, or in float32.
TEST(ProductRoutes, Bfloat16IsSummedWhereTheMachineHasTheKernelForTheShape) {
  const auto expect = [](const std::string& name, const char* own, const char* library,
                         const char* in_float) {
    EXPECT_EQ(name, machine_sums_bfloat16() ? own : cpu_multiplies_bfloat16() ? library : in_float);
  };
  const char* const joined = "joined rows in the library";
  const char* const each = "each layer in the library";
  const LeftOperand x{at::kCPU, at::kBFloat16, 64}, nine{at::kCPU, at::kBFloat16, 9};
  const WeightTraits bfloat16 = stored(at::kBFloat16);
  expect(forward(x, {kNf4, kNf4}), "bfloat16 sums", joined, "float32 sums");
  expect(backward(x, {kNf4, kNf4}), "bfloat16 sums", joined, "float32 sums");
  expect(forward(x, {kNf4, kNf4}, kOddRank), joined, joined, "float32 sums");
  expect(forward(x, {kNf4, kNf4}, kNoSums), joined, joined, "joined rows in float32");
  expect(forward(x, {kNf4, kNf4}, kMagnitude), each, each, "each layer in float32");
  expect(forward(x, {kNf4, kNf4}, {.out = 97}), joined, joined, "float32 sums");
  expect(forward(nine, {kNf4, kNf4}), "bfloat16 sums", joined, "float32 sums");
  expect(forward(x, {bfloat16}), "bfloat16 sums", each, "float32 sums");
  expect(forward(x, {bfloat16, kNf4}), "bfloat16 sums", each, "float32 sums");
  expect(forward(x, {stored(at::kHalf)}), each, each, "each layer in float32");
  const char* const products = "int8 products";
  expect(forward(x, {kInt8, kInt8}), "int8 sums", products, "int8 sums");
  expect(backward(x, {kInt8, kInt8}), "int8 sums", each, "int8 sums");
  for (const Changes& changes : {kOddRank, Changes{.in = 66}})
    expect(forward(x, {kInt8, kInt8}, changes), products, products, "int8 sums");
  for (const Changes& changes : {kMagnitude, kNoSums})
    expect(forward(x, {kInt8, kInt8}, changes), products, products, "int8 products in float32");
  expect(forward(x, {kInt8, kNf4}), products, products, "int8 products in float32");
}

TEST(ProductRoutes, AGpusAreTheLibrarys) {
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const int64_t rows : {1, 64}) {
      const LeftOperand x{at::kCUDA, dtype, rows};
      EXPECT_EQ(forward(x, {kNf4, kGguf}), "joined rows in the library");
      EXPECT_EQ(forward(x, {kNf4}), "each layer in the library");
      EXPECT_EQ(forward(x, {kNf4, kNf4}, kMagnitude), "each layer in the library");
      EXPECT_EQ(forward(x, {stored(dtype), stored(dtype)}), "each layer in the library");
      EXPECT_EQ(forward(x, {kInt8, kInt8}), "int8 products");
      EXPECT_EQ(backward(x, {kInt8, kInt8}), "each layer in the library");
    }
}

TEST(ProductRoutes, FewRowsHaveKernelsOfTheirOwnForwardAlone) {
  const auto run_of = [](const ProductFacts& facts, Pass pass = Pass::kForward) {
    return product_route(facts, pass).run;
  };
  const WeightTraits bfloat16 = stored(at::kBFloat16);
  for (const auto set : {InstructionSet::kAvx2, InstructionSet::kAvx512Bfloat16}) {
    const AtMost most(set);
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      for (const int64_t rows : {1, 8}) {
        const LeftOperand x{at::kCPU, dtype, rows};
        EXPECT_EQ(run_of(facts_of(x, {kNf4, kGguf})), ProductRun::kFewRows);
        EXPECT_EQ(run_of(facts_of(x, {bfloat16})), ProductRun::kFewRows);
        EXPECT_EQ(run_of(facts_of(x, {kNf4, kGguf}), Pass::kBackward), ProductRun::kJoined);
        EXPECT_EQ(run_of(facts_of(x, {kNf4}), Pass::kBackward), ProductRun::kEach);
        // Of several stored ones, each asks for itself.
        EXPECT_EQ(run_of(facts_of(x, {bfloat16, bfloat16})), ProductRun::kEach);
        for (const at::ScalarType wide : {at::kHalf, at::kFloat})
          EXPECT_EQ(run_of(facts_of(x, {stored(wide)})),
                    dtype == at::kBFloat16 ? ProductRun::kEach : ProductRun::kFewRows);
        EXPECT_EQ(run_of(facts_of(x, {kNf4}, kMagnitude)), ProductRun::kEach);
        EXPECT_EQ(run_of(facts_of(x, {kInt8})), ProductRun::kInt8);
      }
    EXPECT_EQ(run_of(facts_of({at::kCPU, at::kFloat, 0}, {kNf4, kNf4})), ProductRun::kJoined);
  }
}

TEST(ProductRoutes, RowsAreTakenInTheNarrowestTypeThatHoldsThem) {
  const AtMost most(InstructionSet::kAvx2);
  const auto taken = [](at::DeviceType device, at::ScalarType dtype,
                        const std::vector<WeightTraits>& weights) {
    return rows_dtype(facts_of({device, dtype, 64}, weights));
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf}) {
    EXPECT_EQ(taken(at::kCPU, dtype, {kNf4, kNf4}), at::kBFloat16);
    EXPECT_EQ(taken(at::kCPU, dtype, {kGguf}), at::kFloat);
    EXPECT_EQ(taken(at::kCPU, dtype, {kNf4, kGguf}), at::kFloat);  // one type for all
    EXPECT_EQ(taken(at::kCPU, dtype, {stored(at::kHalf)}), at::kHalf);
    EXPECT_EQ(taken(at::kCUDA, dtype, {kNf4, stored(at::kBFloat16)}), dtype);
  }
  EXPECT_EQ(taken(at::kCPU, at::kBFloat16, {stored(at::kFloat)}), at::kBFloat16);
}

TEST(ProductRoutes, WhatIsDecodedIsTheRowsOfAllLayersWhereTheyAreJoined) {
  constexpr int64_t kLayer = 96 * 64;
  const AtMost most(InstructionSet::kAvx2);
  const LeftOperand x{at::kCPU, at::kFloat, 64}, gpu{at::kCUDA, at::kFloat, 64};
  EXPECT_EQ(decoded_bytes(facts_of(x, {kNf4, kNf4, kNf4})), 3 * kLayer * 2);
  EXPECT_EQ(decoded_bytes(facts_of(x, {kNf4, kNf4, kGguf})), 3 * kLayer * 4);
  EXPECT_EQ(decoded_bytes(facts_of(x, {kNf4, kNf4, kGguf}, kMagnitude)), kLayer * 4);
  EXPECT_EQ(decoded_bytes(facts_of(x, {kInt8, kInt8})), 2 * kLayer * 4);
  EXPECT_EQ(decoded_bytes(facts_of(x, {stored(at::kBFloat16), stored(at::kBFloat16)})), 0);
  EXPECT_EQ(decoded_bytes(facts_of(x, {stored(at::kBFloat16), stored(at::kHalf)})), 2 * kLayer * 4);
  EXPECT_EQ(decoded_bytes(facts_of(x, {stored(at::kBFloat16), kNf4})), 2 * kLayer * 2);
  EXPECT_EQ(decoded_bytes(facts_of({at::kCPU, at::kBFloat16, 64}, {stored(at::kFloat)})),
            kLayer * 2);
  // Few rows are not decoded forward, but backward.
  EXPECT_EQ(decoded_bytes(facts_of({at::kCPU, at::kFloat, 1}, {kNf4, kNf4})), 2 * kLayer * 2);
  // In float32 on a GPU a layer's values are rounded in a copy of their own.
  EXPECT_EQ(decoded_bytes(facts_of(gpu, {kNf4})), kLayer * (4 + 2));
  EXPECT_EQ(decoded_bytes(facts_of(gpu, {kNf4, kNf4})), 2 * kLayer * 4);
  EXPECT_EQ(decoded_bytes(facts_of(gpu, {stored(at::kBFloat16)})), kLayer * 4);
  EXPECT_EQ(decoded_bytes(facts_of(gpu, {stored(at::kFloat)})), 0);
}

TEST(WeightTraits, ArePlannedAsTheMadeWeightHasThem) {
  for (const char* method : {"none", "as_stored", "nf4", "fp4", "int8", "int8_weight_only"})
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      for (const char* module : {"q_proj", "lm_head"}) {
        QuantizationOptions options;
        options.method = method;
        const auto made = make_frozen_weight(at::randn({48, 64}).to(dtype), options, module);
        const WeightBytes told = planned_weight_bytes(options, module, 48, 64, dtype);
        EXPECT_EQ(told.traits, made->traits()) << method << " " << c10::toString(dtype);
        EXPECT_EQ(loaded_weight_bytes(*made).traits, made->traits());
        EXPECT_EQ(told.weights + told.scales, loaded_weight_bytes(*made).weights) << method;
      }
  const GgufWeight blocks(at::zeros({48, 2 * 34}, at::kByte), io::DType::kQ8_0, 64);
  EXPECT_EQ(planned_block_bytes(io::DType::kQ8_0, 48, 64).traits, blocks.traits());
}

// A format's rows must be what its traits promise, or sums would round them once more.
TEST(WeightTraits, TheTypeHoldsEveryDecodedRow) {
  for (const char* method : {"none", "nf4", "fp4", "int8", "int8_weight_only"})
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      QuantizationOptions options;
      options.method = method;
      const auto weight = make_frozen_weight(at::randn({48, 64}).to(dtype), options, "q_proj");
      at::Tensor wide = at::empty({48, 64});
      weight->dequantize_rows(0, 0, 48, wide);
      EXPECT_TRUE(at::equal(wide, wide.to(weight->traits().dtype).to(at::kFloat))) << method;
      const bool stored = weight->traits().kind == WeightKind::kStored;
      EXPECT_EQ(weight->stored_rows(weight->traits().dtype).defined(), stored) << method;
      EXPECT_EQ(weight->int8_factor().has_value(), weight->traits().kind == WeightKind::kInt8);
    }
}

}  // namespace
}  // namespace qlora::quant
