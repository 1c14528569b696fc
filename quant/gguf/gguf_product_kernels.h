// Products of few rows with weights that stay in the blocks of a GGUF file
// (quant/few_rows/rows_product.h), straight from the blocks: a block's integers become floats in
// registers, are multiplied by its scale and by x. What a minimum m adds to a block's sum is m Σ x,
// of which the sums are made once for all rows.
//
//   sums[t * stride + r] = Σ_i x[t, i] W[r, i]
//
// For Q4_0, Q4_1, Q8_0 and MXFP4; other types are decoded some rows at a time
// (quant/few_rows/dense_rows_product.h).
#pragma once

#include <cstdint>

#include "io/dtype.h"

namespace qlora::quant::cpu {

bool has_gguf_rows(io::DType type);

// Σ x over each block of 32: x [in] -> [in / 32].
void sum_gguf_blocks(const float* x, int64_t in, float* sums);

struct GgufRows {
  io::DType type;
  const uint8_t* blocks;  // of the first row
  int64_t in;
};
// x, x_sums: [tokens, in] and [tokens, in / 32].
void multiply_gguf_rows(const GgufRows& w, int64_t rows, const float* x, const float* x_sums,
                        int64_t tokens, float* sums, int64_t stride);

}  // namespace qlora::quant::cpu
