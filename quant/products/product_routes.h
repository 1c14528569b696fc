// By what the products of frozen weights are made, y_i = x W_iᵀ of layers that share x and dx =
// Σ dy_i W_i: one list, in the order of preference, for the passes themselves and for whoever has
// to know what they will need.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/products/product.h"

namespace qlora::quant {

// What products multiply of a weight.
enum class WeightKind : uint8_t {
  kStored,   // its rows, which lie in memory in 16 or 32 bits
  kDecoded,  // its rows, decoded for each product
  kInt8,     // its codes with those of x (LLM.int8()); the backward pass decodes its rows
};

struct WeightTraits {
  WeightKind kind = WeightKind::kDecoded;
  // The narrowest type that holds the rows without a rounding: that in which they are stored, or to
  // which the format rounds what it decodes; float32 if it rounds to none.
  at::ScalarType dtype = at::kFloat;

  // The narrowest type that holds the rows for a product in `product` without another rounding.
  at::ScalarType decoded_dtype(at::ScalarType product) const {
    return product == at::kFloat ? dtype : product;
  }
  bool operator==(const WeightTraits&) const = default;
};

// A layer, as far as the choice goes by it.
struct LayerFacts {
  WeightTraits weight;
  int64_t out = 0, in = 0;
  int64_t rank = 0;  // of its adapter; 0: none
  // Nothing but the frozen weight, which does not multiply alone (FrozenWeight), and an adapter
  // without DoRA's magnitude.
  bool plain = true;
};

struct ProductFacts {
  LeftOperand left;   // x, or a dy of as many rows
  bool sums = false;  // adapters' products or a residual stream are to be added, or the rows are of
                      // ever other numbers
  c10::SmallVector<LayerFacts, 4> layers = {};
};

enum class Pass : uint8_t { kForward, kBackward };  // y, dx

// What runs. Of several layers with kInt8 or kEach each asks once more, by its own facts alone.
enum class ProductRun : uint8_t {
  kFewRows,     // quant/few_rows/rows_product.h, of all layers at once
  kSummedInt8,  // multiply_summed_int8(); the backward pass as kSummed
  kSummed,      // multiply_summed(), of all layers at once
  kInt8,        // int8_linear(), layer by layer
  kJoined,      // multiply_into() with the rows of all layers, one below the other
  kEach,        // multiply_into(), layer by layer
};

struct ProductRoute {
  const char* name;
  bool (*supports)(const ProductFacts& facts, Pass pass);
  ProductRun run;
  bool joins_rows = false;  // what is decoded for one product is the rows of all layers
  bool sums = false;        // adds adapters' products before the sum is rounded, and a residual
                            // stream instead of rounding it
  bool in_int8 = false;     // forward products take x in 8 bits
  bool in_int32 = false;    // ... and are tensors of int32 before they are scaled
  bool in_library = false;  // oneDNN or cuBLAS
};

std::span<const ProductRoute> product_routes();
// The first route that supports it.
const ProductRoute& product_route(const ProductFacts& facts, Pass pass);

// The type in which a product with `left` takes a weight's rows; in which products of several
// layers take those of all.
at::ScalarType rows_dtype(const LeftOperand& left, const WeightTraits& weight);
at::ScalarType rows_dtype(const ProductFacts& facts);

// Whether the rows lie in memory as `dtype`, so that no product in it needs a copy.
bool is_stored_as(const WeightTraits& weight, at::ScalarType dtype);

// Bytes of the largest buffer to which the backward pass decodes rows; the forward pass needs none
// that is larger.
int64_t decoded_bytes(const ProductFacts& facts);

// For `qlora doctor`: what each kind of product is multiplied by on this machine's CPU.
struct MachineProduct {
  std::string kind, route;
};
std::vector<MachineProduct> cpu_product_routes();

}  // namespace qlora::quant
