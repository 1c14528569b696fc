// Decodes the block formats of GGUF (llama.cpp's ggml-quants.c), and the plain 16-, 32- and
// 64-bit types. With d, m the block's fp16 scale and minimum, q the stored integers:
//
//   Q4_0 (q - 8) d    Q4_1 q d + m    Q5_0 (q - 16) d    Q5_1 q d + m    Q8_0 q d
//   K types: 256 elements in sub-blocks with integer scales (and minima) s, t:
//   Q2_K, Q4_K, Q5_K (d s) q - (dmin t)      Q3_K, Q6_K (d s) q
//   MXFP4: q a number of E2M1, doubled; d a power of two in one byte (E8M0), halved: q d
//
// Every product and difference is rounded to fp32 on its own, as gguf-py does: equal bit for bit.
// Where the output is bf16 or fp16 that is rounded once more.
#pragma once

#include <cstddef>
#include <cstdint>

#include "io/dtype.h"
#include "quant/elements/element_type.h"

namespace qlora::quant {

// `elements` (a multiple of the block size) starting at `blocks`, which may be unaligned, to `out`,
// whose elements are of `type`. Error for types without a decoding.
void dequantize_gguf_blocks(io::DType dtype, const std::byte* blocks, int64_t elements, void* out,
                            ElementType type = ElementType::kFloat32);

}  // namespace qlora::quant
