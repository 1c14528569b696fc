// Sums over products of blocks, which the backward pass of attention on AVX-512 BF16 takes. To be
// included where flash_attention_avx512.h is, and after it.
#pragma once

#include "model/flash_attention_avx512.h"

namespace qlora::model::cpu {

// Where a product of a block goes: to fp32, from zero or added to what is there, or to bf16.
struct Sum {
  float* sum;  // [.., head_dim]
  bool add;
  uint16_t* out;  // or null
  int64_t out_stride;
};

// Rows of sum += a * packed, kVectors of their columns. Strides of a as in multiply_tile;
// range(r, rows): the pairs that rows from r on need.
template <int kRowStride, int kPairStride, int kVectors, typename Range>
[[gnu::noinline]] void accumulate_columns(const uint16_t* a, int64_t rows, const uint32_t* packed,
                                          int64_t head_dim, const Range& range, const Sum& to) {
  constexpr int kRows = kTileRows<kVectors>;
  for (int64_t r = 0; r < rows; r += kRows) {
    __m512 acc[kRows][kVectors];
    clear_tile(acc);
    if (to.add)
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j)
          acc[i][j] = _mm512_loadu_ps(to.sum + std::min(r + i, rows - 1) * head_dim + j * kWords);
    const auto [begin, end] = range(r, kRows);
    multiply_tile(a + r * kRowStride + begin * kPairStride, kRowStride, kPairStride, kRows,
                  packed + begin * head_dim, head_dim, end - begin, acc);
    for (int i = 0; i < kRows; ++i) {
      if (r + i >= rows) break;
      for (int j = 0; j < kVectors; ++j) {
        if (to.out != nullptr)
          store_bfloat16(acc[i][j], to.out + (r + i) * to.out_stride + j * kWords, 0xffff);
        else
          _mm512_storeu_ps(to.sum + (r + i) * head_dim + j * kWords, acc[i][j]);
      }
    }
  }
}

template <int kRowStride, int kPairStride, typename Range>
void accumulate(const uint16_t* a, int64_t rows, const uint32_t* packed, int64_t head_dim,
                const Range& range, const Sum& to) {
  for (int64_t c = 0; c < head_dim; c += kSegments * kWords)
    with_vectors((head_dim - c) / kWords, [&](auto vectors) {
      accumulate_columns<kRowStride, kPairStride, vectors>(
          a, rows, packed + c, head_dim, range,
          {to.sum + c, to.add, to.out == nullptr ? nullptr : to.out + c, to.out_stride});
    });
}

}  // namespace qlora::model::cpu
