// 4-bit product for AVX-512 (F) with x in fp32: vpermps looks 16 weights up.
#ifdef __x86_64__
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>

#include "quant/nf4_block_decoders.h"
#include "quant/nf4_product_kernels.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#include "quant/product_avx512.h"

namespace qlora::quant::cpu {
namespace {
using namespace avx512;

constexpr int64_t kUnit = 32;  // elements of 16 bytes

// Of four copies of 4 double words, copy l shifted right by 4 l, or by 16 more for the second half:
// double word j then begins with its nibble l (+ 4): the order of lay_out_by_nibble.
[[gnu::always_inline]] inline __m512i shifts(int half) {
  const __m512i first = _mm512_set_epi32(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0);
  return _mm512_add_epi32(first, _mm512_set1_epi32(16 * half));
}

// To nearest, ties to even; NaN stays NaN.
[[gnu::always_inline]] inline __m512 rounded_to_bfloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(
      _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xffff0000))), nan, bits));
}

// The block's 16 values.
[[gnu::always_inline]] inline __m512 values_of(__m512 table, float scale, ElementType rounding) {
  const __m512 products = _mm512_mul_ps(table, _mm512_set1_ps(scale));
  if (rounding == ElementType::kFloat32) return products;
  if (rounding == ElementType::kBFloat16) return rounded_to_bfloat16(products);
  return _mm512_cvtph_ps(_mm512_cvtps_ph(products, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// Of one block of kCount rows: 32 elements from `x` on.
template <int kTokens, int kCount>
[[gnu::always_inline]] inline void add_unit(const uint8_t* packed, int64_t row_bytes,
                                            const float* x, int64_t in,
                                            const __m512 (&values)[kCount],
                                            __m512 (&acc)[kTokens][kCount]) {
  for (int half = 0; half < 2; ++half) {
    const __m512i nibble = shifts(half);
    __m512 of_x[kTokens];
    for (int t = 0; t < kTokens; ++t) of_x[t] = _mm512_loadu_ps(x + t * in + half * kUnit / 2);
    for (int r = 0; r < kCount; ++r) {
      const __m512i bytes = _mm512_broadcast_i32x4(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + r * row_bytes)));
      const __m512 weights = _mm512_permutexvar_ps(_mm512_srlv_epi32(bytes, nibble), values[r]);
      for (int t = 0; t < kTokens; ++t) acc[t][r] = _mm512_fmadd_ps(weights, of_x[t], acc[t][r]);
    }
  }
}

template <int kTokens, int kCount>
[[gnu::always_inline]] inline void multiply_tile(const FourBitRows& w, const uint8_t* packed,
                                                 const float* scales, const float* x, float* sums,
                                                 int64_t stride) {
  const int64_t in = w.in, row_bytes = in / 2, blocks = in / w.block_size;
  const __m512 table = _mm512_loadu_ps(code_table(w.code));
  __m512 acc[kTokens][kCount];
  for (auto& rows : acc)
    for (__m512& sum : rows) sum = _mm512_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
    __m512 values[kCount];
    for (int r = 0; r < kCount; ++r)
      values[r] = values_of(table, scales[r * blocks + block], w.rounding);
    const int64_t first = block * w.block_size;
    for (int64_t at = first; at < first + w.block_size; at += kUnit) {
      prefetch(packed + kAhead + kCount * at / 2, kCount * kUnit / 2);
      add_unit(packed + at / 2, row_bytes, x + at, in, values, acc);
    }
  }
  store_sums(acc, sums, stride);
}

template <int kTokens>
void multiply_tokens(const FourBitRows& w, const float* x, int64_t begin, int64_t end, float* sums,
                     int64_t stride) {
  ScaleRows scales(w);
  int64_t row = begin;
  for (; row + kRows <= end; row += kRows)
    multiply_tile<kTokens, kRows>(w, w.packed + row * (w.in / 2), scales.of(row, kRows, end), x,
                                  sums + row - begin, stride);
  for (; row < end; ++row)
    multiply_tile<kTokens, 1>(w, w.packed + row * (w.in / 2), scales.of(row, 1, end), x,
                              sums + row - begin, stride);
}

}  // namespace

void multiply_avx512(const FourBitRows& w, const void* x, int64_t tokens, int64_t begin,
                     int64_t end, float* sums, int64_t stride) {
  const auto* from = static_cast<const float*>(x);
  for_tokens(tokens, [&](int64_t t, auto count) {
    multiply_tokens<count>(w, from + t * w.in, begin, end, sums + t * stride, stride);
  });
}

}  // namespace qlora::quant::cpu
#endif
