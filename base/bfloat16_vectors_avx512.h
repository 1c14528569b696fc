// Vectors of fp32 that come from bf16 and become bf16 again, and their exponential, for kernels on
// AVX-512 BF16. To be included where base/bfloat16_tile_avx512.h is, and after it.
#pragma once

namespace qlora::avx512 {

constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// 2^x: a polynomial on [0, 1), relative error below 3e-6, 600 times finer than bf16, and none at
// whole numbers; 0 far below zero and at minus infinity, NaN at NaN.
[[gnu::always_inline]] inline __m512 exp2_of(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(1.342668427e-2f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.224247422e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.412802048e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.930448449e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);  // takes the floor of x
}

// In bf16: the lanes of `low`, then those of `high` ...
[[gnu::always_inline]] inline __m512i rounded(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}
// ... and as words that hold a lane of each.
[[gnu::always_inline]] inline __m512i woven(__m512i rounded) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, rounded);
}

// 32 neighbours as words of two: the first of each, and the second.
[[gnu::always_inline]] inline __m512 first_of(__m512i words) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}
[[gnu::always_inline]] inline __m512 second_of(__m512i words) {
  return _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-65536)));
}

// 32 elements, or the `count` that are left.
[[gnu::always_inline]] inline __mmask32 first_of_32(int64_t count) {
  return count >= 32 ? 0xffffffffu : static_cast<__mmask32>((1u << count) - 1u);
}

}  // namespace qlora::avx512
