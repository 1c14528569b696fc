#include "quant/products/product_routes.h"

#include <algorithm>

#include "base/instruction_set.h"
#include "quant/few_rows/rows_product.h"
#include "quant/products/code_product_kernels.h"
#include "quant/products/summed_product.h"

namespace qlora::quant {
namespace {

bool in_float(const LeftOperand& left) { return multiplies_in_float(left.device, left.dtype); }

int64_t bytes_of(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

template <typename Condition>
bool all_layers(const ProductFacts& facts, const Condition& condition) {
  return std::ranges::all_of(facts.layers, condition);
}

bool are_decoded(const ProductFacts& facts) {
  return all_layers(facts, [](const LayerFacts& layer) {
    return layer.plain && layer.weight.kind == WeightKind::kDecoded;
  });
}

// What is wider than the product is rounded first.
bool has_rows_kernel(const LayerFacts& layer, at::ScalarType product) {
  switch (layer.weight.kind) {
    case WeightKind::kStored:
      return layer.weight.dtype == at::kBFloat16 || product != at::kBFloat16;
    case WeightKind::kDecoded:
      return true;
    case WeightKind::kInt8:
      return false;
  }
  return false;
}

bool takes_few_rows(const ProductFacts& facts, Pass pass) {
  const LeftOperand& x = facts.left;
  return pass == Pass::kForward && x.device == at::kCPU && 0 < x.rows && x.rows <= kFewRows &&
         (facts.layers.size() == 1 || are_decoded(facts)) &&
         all_layers(facts, [&x](const LayerFacts& layer) {
           return layer.plain && has_rows_kernel(layer, x.dtype);
         });
}

// Forward and backward: an input gradient has the output features as its depth.
bool has_sums(const ProductFacts& facts) {
  return facts.sums && all_layers(facts, [&](const LayerFacts& layer) {
           return layer.plain && sums_products(facts.left, layer.in, layer.rank) &&
                  sums_products(facts.left, layer.out, layer.rank);
         });
}

bool sums_int8(const ProductFacts& facts, Pass) {
  return all_layers(facts,
                    [&](const LayerFacts& layer) {
                      return layer.weight.kind == WeightKind::kInt8 &&
                             sums_int8_products(facts.left, layer.in, layer.rank);
                    }) &&
         has_sums(facts);
}

bool sums_rows(const ProductFacts& facts, Pass) {
  return has_sums(facts) && all_layers(facts, [&](const LayerFacts& layer) {
           return layer.weight.kind == WeightKind::kDecoded ||
                  is_stored_as(layer.weight, rows_dtype(facts.left, layer.weight));
         });
}

bool sums_rows_in_float(const ProductFacts& facts, Pass pass) {
  return in_float(facts.left) && sums_rows(facts, pass);
}

bool multiplies_codes(const ProductFacts& facts, Pass pass) {
  return pass == Pass::kForward && std::ranges::any_of(facts.layers, [](const LayerFacts& layer) {
           return layer.weight.kind == WeightKind::kInt8;
         });
}

bool multiplies_codes_in_float(const ProductFacts& facts, Pass pass) {
  return in_float(facts.left) && multiplies_codes(facts, pass);
}

bool joins(const ProductFacts& facts, Pass) {
  return facts.layers.size() > 1 && are_decoded(facts);
}

bool joins_in_float(const ProductFacts& facts, Pass pass) {
  return in_float(facts.left) && joins(facts, pass);
}

bool is_in_float(const ProductFacts& facts, Pass) { return in_float(facts.left); }

bool always(const ProductFacts&, Pass) { return true; }

constexpr ProductRoute kRoutes[] = {
    {.name = "few rows", .supports = takes_few_rows, .run = ProductRun::kFewRows},
    {.name = "int8 sums",
     .supports = sums_int8,
     .run = ProductRun::kSummedInt8,
     .joins_rows = true,
     .sums = true,
     .in_int8 = true},
    {.name = "float32 sums",
     .supports = sums_rows_in_float,
     .run = ProductRun::kSummed,
     .joins_rows = true,
     .sums = true},
    {.name = "bfloat16 sums",
     .supports = sums_rows,
     .run = ProductRun::kSummed,
     .joins_rows = true,
     .sums = true},
    {.name = "int8 products in float32",
     .supports = multiplies_codes_in_float,
     .run = ProductRun::kInt8,
     .in_int8 = true},
    {.name = "int8 products",
     .supports = multiplies_codes,
     .run = ProductRun::kInt8,
     .in_int8 = true,
     .in_int32 = true,
     .in_library = true},
    {.name = "joined rows in float32",
     .supports = joins_in_float,
     .run = ProductRun::kJoined,
     .joins_rows = true},
    {.name = "joined rows in the library",
     .supports = joins,
     .run = ProductRun::kJoined,
     .joins_rows = true,
     .in_library = true},
    {.name = "each layer in float32", .supports = is_in_float, .run = ProductRun::kEach},
    {.name = "each layer in the library",
     .supports = always,
     .run = ProductRun::kEach,
     .in_library = true}};

// Of one layer, with the copy in which 4-bit values are rounded before they become float32.
int64_t decoded_bytes(const LayerFacts& layer, at::ScalarType dtype) {
  const WeightTraits& weight = layer.weight;
  if (is_stored_as(weight, dtype)) return 0;
  const bool rounds = weight.kind == WeightKind::kDecoded && dtype == at::kFloat;
  const int64_t rounded = rounds && weight.dtype != dtype ? bytes_of(weight.dtype) : 0;
  return layer.out * layer.in * (bytes_of(dtype) + rounded);
}

// A layer with an adapter in a training step.
const ProductRoute& usual_route(at::ScalarType dtype, WeightKind kind) {
  constexpr int64_t kRows = 512, kSize = 64, kRank = 16;
  ProductFacts facts{.left = {at::kCPU, dtype, kRows}, .sums = true};
  facts.layers.push_back(
      {.weight = {kind, at::kBFloat16}, .out = kSize, .in = kSize, .rank = kRank});
  return product_route(facts, Pass::kForward);
}

}  // namespace

std::span<const ProductRoute> product_routes() { return kRoutes; }

const ProductRoute& product_route(const ProductFacts& facts, Pass pass) {
  return *std::ranges::find_if(
      kRoutes, [&](const ProductRoute& route) { return route.supports(facts, pass); });
}

at::ScalarType rows_dtype(const LeftOperand& left, const WeightTraits& weight) {
  const at::ScalarType product = product_dtype(left);
  return in_float(left) ? weight.decoded_dtype(product) : product;
}

at::ScalarType rows_dtype(const ProductFacts& facts) {
  const at::ScalarType first = rows_dtype(facts.left, facts.layers.front().weight);
  const bool alike = all_layers(facts, [&](const LayerFacts& layer) {
    return rows_dtype(facts.left, layer.weight) == first;
  });
  return alike ? first : product_dtype(facts.left);
}

bool is_stored_as(const WeightTraits& weight, at::ScalarType dtype) {
  return weight.kind == WeightKind::kStored && weight.dtype == dtype;
}

int64_t decoded_bytes(const ProductFacts& facts) {
  const bool joined = product_route(facts, Pass::kBackward).joins_rows;
  const at::ScalarType of_all = rows_dtype(facts);
  int64_t most = 0, together = 0;
  bool stored = true;
  for (const LayerFacts& layer : facts.layers) {
    const at::ScalarType dtype = joined ? of_all : rows_dtype(facts.left, layer.weight);
    most = std::max(most, decoded_bytes(layer, dtype));
    together += layer.out * layer.in * bytes_of(dtype);
    stored = stored && is_stored_as(layer.weight, dtype);
  }
  return joined && !stored ? std::max(most, together) : most;
}

std::vector<MachineProduct> cpu_product_routes() {
  const std::string own = "own kernels, " + to_string(instruction_set());
  std::vector<MachineProduct> all;
  for (const auto& [kind, dtype] :
       {std::pair("float32", at::kFloat), std::pair("float16", at::kHalf),
        std::pair("bfloat16", at::kBFloat16)}) {
    const bool library = usual_route(dtype, WeightKind::kDecoded).in_library;
    const bool wide = multiplies_in_float(at::kCPU, dtype);
    all.push_back({kind, library ? "oneDNN" : own + (wide ? ", summed in float32" : "")});
  }
  const bool library = usual_route(at::kBFloat16, WeightKind::kInt8).in_library;
  const bool wide = multiplies_in_float(at::kCPU, at::kBFloat16);
  const std::string instructions = wide ? cpu::code_product().name : "AVX-512 VNNI";
  all.push_back({"int8", library ? "oneDNN" : "own kernels, " + instructions});
  return all;
}

}  // namespace qlora::quant
