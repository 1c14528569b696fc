// What the AVX-512 kernels of rows_product.h share. To be included after every other header and
// after the #pragma GCC target of the file.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace qlora::quant::cpu::avx512 {

constexpr int kRows = 4;  // of a weight that a tile takes at once

// How far ahead of the codes that are multiplied others are asked for: rows that lie one after the
// other are read side by side, which the processor does not take for one stream by itself.
constexpr int64_t kAhead = 8192;

[[gnu::always_inline]] inline void prefetch(const uint8_t* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64)
    _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T0);
}

// Lane i of the result is the sum of the lanes of the i-th vector; the order of the additions is
// the same for all four.
[[gnu::always_inline]] inline __m128 sums_of_lanes(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
  const __m256 half =
      _mm256_add_ps(_mm512_castps512_ps256(all),
                    _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// sums[t * stride + r] = the lanes of acc[t][r], summed; in one order for any number of rows.
template <int kTokens, int kCount>
[[gnu::always_inline]] inline void store_sums(const __m512 (&acc)[kTokens][kCount], float* sums,
                                              int64_t stride) {
  const __m512 zero = _mm512_setzero_ps();
  for (int t = 0; t < kTokens; ++t) {
    if constexpr (kCount == kRows)
      _mm_storeu_ps(sums + t * stride, sums_of_lanes(acc[t][0], acc[t][1], acc[t][2], acc[t][3]));
    else
      _mm_store_ss(sums + t * stride, sums_of_lanes(acc[t][0], zero, zero, zero));
  }
}

}  // namespace qlora::quant::cpu::avx512
