// The CUDA kernel behind quant/formats/gguf_weight.h, on raw pointers; that of the CPU is
// gguf_blocks.h.
#pragma once

#include <cstdint>

#include "io/dtype.h"
#include "quant/elements/element_type.h"

namespace qlora::quant {

struct GgufDequantizeArguments {
  io::DType dtype;        // a block type
  const uint8_t* blocks;  // whole blocks, one after the other
  int64_t elements;       // a multiple of the block size
  void* out;              // [elements]
  ElementType type;
};

namespace cuda {
void dequantize_gguf_blocks(const GgufDequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
