// The thin products of adapters in bf16. Matrix libraries are laid out for square work: at rank 16
// they reach a tenth of what these do.
#pragma once

#include <cstdint>

namespace qlora::lora {

// A bf16 matrix by its bits; `stride` elements from row to row.
struct ConstRows {
  const uint16_t* data;
  int64_t stride;
};
struct Rows {
  uint16_t* data;
  int64_t stride;
};

namespace cpu {

// AVX-512 BF16; sums in fp32, each element's in the order of its terms whatever the thread count.
// All ranks must be even, in_features too.

// h [tokens, rank] = scale x aᵀ; a is [rank, in].
void low_rank_down(ConstRows x, ConstRows a, int64_t tokens, int64_t in, int64_t rank, float scale,
                   Rows h);
// The same with the factor stored [in, rank].
void low_rank_down_transposed(ConstRows x, ConstRows b, int64_t tokens, int64_t in, int64_t rank,
                              float scale, Rows h);
// y [tokens, out] (+)= scale h bᵀ; b is [out, rank].
void low_rank_up(ConstRows h, ConstRows b, int64_t tokens, int64_t rank, int64_t out, float scale,
                 bool accumulate, Rows y);
// The same with the factor stored [rank, out].
void low_rank_up_transposed(ConstRows h, ConstRows a, int64_t tokens, int64_t rank, int64_t out,
                            float scale, bool accumulate, Rows y);
// Σ_t h[t, r] x[t, i] times scale is added to gradient[r * row_stride + i * column_stride].
struct GradientRows {
  float* data;
  int64_t row_stride, column_stride;
};
void low_rank_gradient(ConstRows h, ConstRows x, int64_t tokens, int64_t rank, int64_t in,
                       float scale, GradientRows gradient);

}  // namespace cpu
}  // namespace qlora::lora
