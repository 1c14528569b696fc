// What a linear layer's weight will take, known from its shape alone: the sizes of what
// make_frozen_weight.h and the readers of packed files build.
#pragma once

#include <cstdint>
#include <string>

#include "io/tensor_view.h"
#include "quant/quantization_options.h"

namespace qlora::quant {

struct WeightBytes {
  int64_t weights = 0;
  int64_t scales = 0;          // of a quantized weight
  bool quantized = false;      // a product needs it dequantized, or in 8 bits
  bool in_eight_bits = false;  // forward products are taken in 8 bits
};

// A weight [out, in] under these options; `dense_bytes`: of an element that stays unquantized.
WeightBytes planned_weight_bytes(const QuantizationOptions& options, const std::string& module,
                                 int64_t out, int64_t in, int64_t dense_bytes);
// One that stays in the blocks of its GGUF file; scales are part of the blocks.
WeightBytes planned_block_bytes(io::DType type, int64_t out, int64_t in);

}  // namespace qlora::quant
