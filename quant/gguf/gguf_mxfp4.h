// The decoder of MXFP4's blocks (gguf_blocks.h), which has vectors for each instruction set: a
// number is looked up in a register.
#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::quant::cpu {

// `count` blocks of 17 bytes, which may be unaligned, to `out`, [count, 32] of `type`.
void dequantize_gguf_mxfp4(const uint8_t* blocks, int64_t count, void* out, ElementType type);

}  // namespace qlora::quant::cpu
