// Blockwise 8-bit quantization with a 256-entry map: the state of 8-bit optimizers and the scales
// of double quantization (Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization,
// section 2.1).
//
//   absmax[b] = max |x| over block b of the flat index
//   code      = the entry of the map that is nearest to x / absmax[b]
//   x         ~ map[code] * absmax[b]
//
// Codes follow bitsandbytes' backend of the same device byte for byte. Both take the nearest entry;
// they differ near ties: the CPU path looks the code up in a table of 65,536 bins over [-1, 1], the
// CUDA path compares with midpoints (a tie goes to the even code). An all-zero block has absmax 0
// and codes 0.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/blockwise8/dynamic_map.h"

namespace qlora::quant {

struct Blockwise8Tensor {
  at::Tensor codes;   // uint8, the shape of what was quantized
  at::Tensor absmax;  // fp32 [ceil(numel / block_size)]
  at::Tensor map;     // fp32 [256], ascending
  int64_t block_size = 256;
};

// The map as a new fp32 tensor [256].
at::Tensor map_tensor(const DynamicMap& map, at::Device device);

// x: contiguous fp32, bf16 or fp16; map: fp32 [256] ascending, on x's device. block_size: a power
// of two, 64..4096. Throws Error naming the flat index of the first infinity or NaN.
Blockwise8Tensor quantize_blockwise8(const at::Tensor& x, const at::Tensor& map,
                                     int64_t block_size);

// Writes all elements to `out`: contiguous fp32, bf16 or fp16, as many elements as codes. Products
// are fp32, rounded once.
void dequantize_blockwise8(const Blockwise8Tensor& quantized, at::Tensor& out);

}  // namespace qlora::quant
