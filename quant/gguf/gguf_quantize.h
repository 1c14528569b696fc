// Encodes the block formats of GGUF whose decoding gguf_blocks.h describes, block for block as
// llama.cpp's reference quantizers do without an importance matrix (ggml-quants.c,
// quantize_row_*_ref): the same float32 operations in the same order, so that the bytes are equal
// on every machine.
//
//   Q4_0, Q5_0   d = (the number of largest magnitude) / -8, / -16
//   Q8_0         d = |largest| / 127
//   Q4_1, Q5_1   m = the smallest, d = (largest - m) / 15, / 31
//   Q4_K, Q5_K   sub-blocks of 32: scale and minimum by weighted least squares, the best of 22
//                (Q5_K: 17) roundings; both then in 6 bits
//   Q6_K         sub-blocks of 16: a scale by least squares, the best of 19 roundings, then in 8
//                bits
#pragma once

#include <cstddef>
#include <cstdint>

#include "io/dtype.h"

namespace qlora::quant {

// Whether quantize_gguf_blocks() writes the type.
bool is_gguf_encoding(io::DType dtype);

// `elements` (a multiple of the block size) from `values`, which must be finite, to `blocks`: one
// of the types above, or F32, F16 and BF16, rounded to nearest. Error for other types and parts of
// blocks.
void quantize_gguf_blocks(io::DType dtype, const float* values, int64_t elements,
                          std::byte* blocks);

}  // namespace qlora::quant
