// Dense product for AVX-512 BF16, weights and x in bf16: vdpbf16ps multiplies 32 elements and adds
// them in pairs. It takes what is below 2^-126 for zero.
#ifdef __x86_64__
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "quant/few_rows/dense_product_kernels.h"
#include "quant/few_rows/for_tokens.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "quant/few_rows/rows_avx512.h"

namespace qlora::quant::cpu {
namespace {
using namespace avx512;

constexpr int64_t kUnit = 32;

template <int kTokens, int kCount>
[[gnu::always_inline]] inline void add_unit(const uint16_t* w, const uint16_t* x, int64_t in,
                                            __mmask32 mask, __m512 (&acc)[kTokens][kCount]) {
  __m512bh of_x[kTokens];
  for (int t = 0; t < kTokens; ++t) of_x[t] = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + t * in);
  for (int r = 0; r < kCount; ++r) {
    const auto weights = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + r * in);
    for (int t = 0; t < kTokens; ++t) acc[t][r] = _mm512_dpbf16_ps(acc[t][r], weights, of_x[t]);
  }
}

template <int kTokens, int kCount>
[[gnu::always_inline]] inline void multiply_tile(const uint16_t* w, const uint16_t* x, int64_t in,
                                                 float* sums, int64_t stride) {
  __m512 acc[kTokens][kCount];
  for (auto& rows : acc)
    for (__m512& sum : rows) sum = _mm512_setzero_ps();
  const int64_t whole = in / kUnit * kUnit;
  for (int64_t at = 0; at < whole; at += kUnit) {
    prefetch(reinterpret_cast<const uint8_t*>(w + kCount * at) + kAhead, kCount * kUnit * 2);
    add_unit(w + at, x + at, in, 0xffffffff, acc);
  }
  if (whole < in)
    add_unit(w + whole, x + whole, in, static_cast<__mmask32>((1u << (in - whole)) - 1), acc);
  store_sums(acc, sums, stride);
}

template <int kTokens>
void multiply_tokens(const uint16_t* w, const uint16_t* x, int64_t rows, int64_t in, float* sums,
                     int64_t stride) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows)
    multiply_tile<kTokens, kRows>(w + row * in, x, in, sums + row, stride);
  for (; row < rows; ++row) multiply_tile<kTokens, 1>(w + row * in, x, in, sums + row, stride);
}

}  // namespace

void multiply_rows(const uint16_t* w, int64_t rows, int64_t in, const uint16_t* x, int64_t tokens,
                   float* sums, int64_t stride) {
  for_tokens(tokens, [&](int64_t t, auto count) {
    multiply_tokens<count>(w, x + t * in, rows, in, sums + t * stride, stride);
  });
}

}  // namespace qlora::quant::cpu
#endif
