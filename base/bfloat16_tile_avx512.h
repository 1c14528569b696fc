// The register tile of the bf16 products we write ourselves (low-rank products, attention), for
// CPUs with AVX-512 BF16. To be included after every other header and after
//
//   #pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
//
// A product C = A B has its sum taken two elements at a time (vdpbf16ps: fp32 += two bf16
// products). A is read as it lies, a pair of neighbours at a time and given to all lanes; B is
// packed so that one 32-bit word holds the two elements of a column that belong to such a pair:
//
//   packed[p][n] = { B[2p][n], B[2p + 1][n] }        [depth / 2][columns, padded to 16]
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace qlora::avx512 {

constexpr int kWords = 16;  // 32-bit lanes of a register

static inline uint32_t pair_at(const uint16_t* first) {
  uint32_t pair;
  std::memcpy(&pair, first, sizeof(pair));
  return pair;
}

// acc[i][j] += Σ_p pair(a + i * row_stride + p * pair_stride) * packed[p][16 j ...], j from kFirst
// on. Strides of a count 16-bit elements; rows past `rows` read the last one.
template <int kFirst = 0, int kRows, int kVectors>
[[gnu::always_inline]] inline void multiply_tile(const uint16_t* a, int64_t row_stride,
                                                 int64_t pair_stride, int64_t rows,
                                                 const uint32_t* packed, int64_t packed_stride,
                                                 int64_t pairs, __m512 (&acc)[kRows][kVectors]) {
  const uint16_t* row[kRows];
  for (int i = 0; i < kRows; ++i) row[i] = a + (i < rows ? i : rows - 1) * row_stride;
  for (int64_t p = 0; p < pairs; ++p) {
    __m512bh b[kVectors];
    for (int j = kFirst; j < kVectors; ++j)
      b[j] = (__m512bh)_mm512_loadu_si512(packed + p * packed_stride + j * kWords);
    for (int i = 0; i < kRows; ++i) {
      const __m512bh pair =
          (__m512bh)_mm512_set1_epi32(static_cast<int>(pair_at(row[i] + p * pair_stride)));
      for (int j = kFirst; j < kVectors; ++j) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], pair, b[j]);
    }
  }
}

template <int kRows, int kVectors>
[[gnu::always_inline]] inline void clear_tile(__m512 (&acc)[kRows][kVectors]) {
  for (auto& row : acc)
    for (__m512& value : row) value = _mm512_setzero_ps();
}

// The first `count` lanes.
static inline __mmask16 first_lanes(int64_t count) {
  return count >= kWords ? static_cast<__mmask16>(0xffff)
                         : static_cast<__mmask16>((1u << count) - 1u);
}

static inline __m512 load_bfloat16(const uint16_t* from, __mmask16 mask) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}
static inline void store_bfloat16(__m512 values, uint16_t* to, __mmask16 mask) {
  _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(values));
}

// Rows 2p and 2p + 1 of b [depth, columns] -> packed words; a missing last row counts as zero.
// packed_stride >= columns rounded up to 16; what pads a row is zero.
static inline void pack_rows(const uint16_t* b, int64_t stride, int64_t depth, int64_t columns,
                             uint32_t* packed, int64_t packed_stride) {
  for (int64_t p = 0; 2 * p < depth; ++p) {
    const uint16_t *low = b + 2 * p * stride, *high = low + stride;
    const bool both = 2 * p + 1 < depth;
    for (int64_t n = 0; n < packed_stride; n += kWords) {
      const __mmask16 mask = n < columns ? first_lanes(columns - n) : static_cast<__mmask16>(0);
      const __m512i l = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low + n));
      const __m512i h = both ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, high + n))
                             : _mm512_setzero_si512();
      _mm512_storeu_si512(packed + p * packed_stride + n,
                          _mm512_or_si512(l, _mm512_slli_epi32(h, 16)));
    }
  }
}

// A square of words, mirrored at its diagonal.
[[gnu::always_inline]] inline void transpose_words(__m512i (&rows)[kWords]) {
  __m512i t[kWords];
  for (int i = 0; i < kWords; i += 4) {  // squares of 4 words, in each quarter of the registers
    const __m512i a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    const __m512i b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
    const __m512i d = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int i = 0; i < 4; ++i) {  // a square of 4 such squares
    const __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
    rows[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    rows[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    rows[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

// The same of bᵀ, b being [columns, depth]: pairs lie together already, words are transposed in
// registers (gathering them took 5 times as long). depth must be even.
static inline void pack_transposed(const uint16_t* b, int64_t stride, int64_t depth,
                                   int64_t columns, uint32_t* packed, int64_t packed_stride) {
  const int64_t pairs = depth / 2;
  for (int64_t n = 0; n < packed_stride; n += kWords)
    for (int64_t p = 0; p < pairs; p += kWords) {
      const __mmask16 mask = first_lanes(pairs - p);
      __m512i square[kWords];
      for (int64_t i = 0; i < kWords; ++i)
        square[i] = n + i < columns ? _mm512_maskz_loadu_epi32(mask, b + (n + i) * stride + 2 * p)
                                    : _mm512_setzero_si512();
      transpose_words(square);
      for (int64_t i = 0; i < kWords && p + i < pairs; ++i)
        _mm512_storeu_si512(packed + (p + i) * packed_stride + n, square[i]);
    }
}

static inline int64_t padded(int64_t columns) { return (columns + kWords - 1) / kWords * kWords; }

}  // namespace qlora::avx512
