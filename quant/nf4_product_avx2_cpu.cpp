// 4-bit product for AVX2 + FMA with x in fp32: a block's 16 values stand in two registers, of which
// bit 3 of a code chooses one.
#ifdef __x86_64__
#include <algorithm>

#include "base/bfloat16.h"
#include "quant/nf4_block_decoders.h"
#include "quant/nf4_product_kernels.h"

#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kUnit = 32;  // elements of 16 bytes

struct Values {
  __m256 lower, upper;  // codes 0..7 and 8..15
};

// To nearest, ties to even; NaN stays NaN.
[[gnu::always_inline]] inline __m256 rounded_to_bfloat16(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i upper = _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xffff0000)));
  return _mm256_blendv_ps(_mm256_castsi256_ps(upper), values,
                          _mm256_cmp_ps(values, values, _CMP_UNORD_Q));
}

[[gnu::always_inline]] inline __m256 products_of(const float* table, float scale,
                                                 ElementType rounding) {
  const __m256 products = _mm256_mul_ps(_mm256_loadu_ps(table), _mm256_set1_ps(scale));
  if (rounding == ElementType::kFloat32) return products;
  if (rounding == ElementType::kBFloat16) return rounded_to_bfloat16(products);
  return _mm256_cvtph_ps(_mm256_cvtps_ph(products, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// Of two copies of 4 double words, copy l shifted right by 4 (2 quarter + l): double word j then
// begins with its nibble n = 2 quarter + l, which is element 8 j + (n ^ 1).
[[gnu::always_inline]] inline __m256i codes_of(const uint8_t* packed, int quarter) {
  const __m256i twice =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m256i shifts = _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0);
  return _mm256_srlv_epi32(twice, _mm256_add_epi32(shifts, _mm256_set1_epi32(8 * quarter)));
}

[[gnu::always_inline]] inline __m256 looked_up(const Values& values, __m256i codes) {
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(values.lower, codes),
                          _mm256_permutevar8x32_ps(values.upper, codes),
                          _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}

[[gnu::always_inline]] inline float sum_of_lanes(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// One row of the weight; two sums a row of x, so that additions do not wait for each other.
template <int kTokens>
void multiply_row(const FourBitRows& w, const uint8_t* packed, const float* scales, const float* x,
                  float* sums, int64_t stride) {
  const float* table = code_table(w.code);
  __m256 acc[kTokens][2];
  for (auto& both : acc) both[0] = both[1] = _mm256_setzero_ps();
  int64_t at = 0;
  for (int64_t block = 0; at < w.in; ++block) {
    const Values values{products_of(table, scales[block], w.rounding),
                        products_of(table + 8, scales[block], w.rounding)};
    for (const int64_t end = at + w.block_size; at < end; at += kUnit)
      for (int quarter = 0; quarter < 4; ++quarter) {
        const __m256 weights = looked_up(values, codes_of(packed + at / 2, quarter));
        for (int t = 0; t < kTokens; ++t)
          acc[t][quarter % 2] = _mm256_fmadd_ps(
              weights, _mm256_loadu_ps(x + t * w.in + at + 8 * quarter), acc[t][quarter % 2]);
      }
  }
  for (int t = 0; t < kTokens; ++t)
    sums[t * stride] = sum_of_lanes(_mm256_add_ps(acc[t][0], acc[t][1]));
}

}  // namespace

void multiply_avx2(const FourBitRows& w, const void* x, int64_t tokens, int64_t begin, int64_t end,
                   float* sums, int64_t stride) {
  const auto* from = static_cast<const float*>(x);
  for_tokens(tokens, [&](int64_t t, auto count) {
    ScaleRows scales(w);
    for (int64_t row = begin; row < end; ++row)
      multiply_row<count>(w, w.packed + row * (w.in / 2), scales.of(row, 1, end), from + t * w.in,
                          sums + t * stride + row - begin, stride);
  });
}

}  // namespace qlora::quant::cpu
#endif
