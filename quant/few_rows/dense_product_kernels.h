// Products of few rows with rows that lie in memory as they are (rows_product.h):
//
//   sums[t * stride + r] = Σ_i x[t, i] w[r, i]        w [rows, in], x [tokens, in], contiguous
#pragma once

#include <cstdint>

#include "base/element.h"

namespace qlora::quant::cpu {

void multiply_rows(const float* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride);
// w in bf16, by its bits, or in fp16; x laid out: of 32 elements first those in even places, then
// the others, as they lie in the halves of words.
void lay_out_pairs(const float* x, int64_t in, float* laid_out);
void multiply_rows(const uint16_t* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride);
void multiply_rows(const Float16* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride);

// Both in bf16, for CPUs with AVX-512 BF16.
void multiply_rows(const uint16_t* w, int64_t rows, int64_t in, const uint16_t* x, int64_t tokens,
                   float* sums, int64_t stride);

}  // namespace qlora::quant::cpu
