// What a frozen weight would be and take in memory, told without making it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "quant/products/product_routes.h"
#include "quant/quantization_options.h"
#include "quant/weight_shape.h"

namespace qlora::quant {

struct FrozenSize {
  std::string format;        // as FrozenWeight::format()
  int64_t bytes = 0;         // as FrozenWeight::bytes()
  WeightTraits traits = {};  // as FrozenWeight::traits()
  int64_t scale_bytes = 0;   // those of `bytes` that are scales, where they are told apart
};

// Of what make_frozen_weight() makes of a weight of this shape and dtype.
FrozenSize frozen_size(const WeightShape& shape, at::ScalarType dtype,
                       const QuantizationOptions& options, const std::string& module);

// "bfloat16", "float16" or "float32".
std::string dense_format(at::ScalarType dtype);

}  // namespace qlora::quant
