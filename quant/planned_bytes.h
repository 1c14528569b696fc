// What a linear layer's frozen weight takes, by purpose, told without making it where frozen_size.h
// does.
#pragma once

#include <cstdint>
#include <string>

#include "io/tensor_view.h"
#include "quant/frozen_size.h"
#include "quant/frozen_weight.h"

namespace qlora::quant {

struct WeightBytes {
  int64_t weights = 0;
  int64_t scales = 0;  // of a quantized weight
  WeightTraits traits = {};
};

WeightBytes by_purpose(const FrozenSize& size);

// Of what make_frozen_weight() makes of a weight [out, in] of `dtype`.
WeightBytes planned_weight_bytes(const QuantizationOptions& options, const std::string& module,
                                 int64_t out, int64_t in, at::ScalarType dtype);
// Of one that stays in the blocks of its GGUF file; scales are part of the blocks.
WeightBytes planned_block_bytes(io::DType type, int64_t out, int64_t in);
// Of one that lies in memory; scales are not told apart.
WeightBytes loaded_weight_bytes(const FrozenWeight& weight);

}  // namespace qlora::quant
