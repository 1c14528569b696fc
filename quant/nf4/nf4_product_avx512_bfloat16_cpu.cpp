// 4-bit product for AVX-512 BF16: x and the weights' 16 values of a block are bf16, 32 of which
// vpermw looks up and vdpbf16ps multiplies and adds in pairs. Both instructions take what is below
// 2^-126 for zero.
#ifdef __x86_64__
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>

#include "quant/nf4/nf4_block_decoders.h"
#include "quant/nf4/nf4_product_kernels.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "quant/few_rows/rows_avx512.h"

namespace qlora::quant::cpu {
namespace {
using namespace avx512;

constexpr int64_t kUnit = 32;  // elements of 16 bytes

// Of four copies of 8 words, copy l shifted right by 4 l: word j then begins with its nibble l,
// which is element 4 j + (l ^ 1). vpermw takes 5 bits of an index, so the 16 values stand in a
// register twice.
[[gnu::always_inline]] inline __m512i shifts() {
  return _mm512_set_epi64(0x000c000c000c000c, 0x000c000c000c000c, 0x0008000800080008,
                          0x0008000800080008, 0x0004000400040004, 0x0004000400040004, 0, 0);
}

// The block's 16 values, twice.
[[gnu::always_inline]] inline __m512i values_of(__m512 table, float scale) {
  const __m512 products = _mm512_mul_ps(table, _mm512_set1_ps(scale));
  return (__m512i)_mm512_cvtne2ps_pbh(products, products);
}

// Of one block of kCount rows: 32 elements from `x` on.
template <int kTokens, int kCount>
[[gnu::always_inline]] inline void add_unit(const uint8_t* packed, int64_t row_bytes,
                                            const uint16_t* x, int64_t in,
                                            const __m512i (&values)[kCount],
                                            __m512 (&acc)[kTokens][kCount]) {
  const __m512i nibble = shifts();
  __m512bh of_x[kTokens];
  for (int t = 0; t < kTokens; ++t) of_x[t] = (__m512bh)_mm512_loadu_si512(x + t * in);
  for (int r = 0; r < kCount; ++r) {
    const __m512i bytes = _mm512_broadcast_i32x4(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + r * row_bytes)));
    const auto weights =
        (__m512bh)_mm512_permutexvar_epi16(_mm512_srlv_epi16(bytes, nibble), values[r]);
    for (int t = 0; t < kTokens; ++t) acc[t][r] = _mm512_dpbf16_ps(acc[t][r], weights, of_x[t]);
  }
}

template <int kTokens, int kCount>
[[gnu::always_inline]] inline void multiply_tile(const FourBitRows& w, const uint8_t* packed,
                                                 const float* scales, const uint16_t* x,
                                                 float* sums, int64_t stride) {
  const int64_t in = w.in, row_bytes = in / 2, blocks = in / w.block_size;
  const __m512 table = _mm512_loadu_ps(code_table(w.code));
  __m512 acc[kTokens][kCount];
  for (auto& rows : acc)
    for (__m512& sum : rows) sum = _mm512_setzero_ps();
  const uint8_t* ahead = packed + kAhead;
  for (int64_t block = 0; block < blocks; ++block) {
    __m512i values[kCount];
    for (int r = 0; r < kCount; ++r) values[r] = values_of(table, scales[r * blocks + block]);
    const auto add = [&] {
      add_unit(packed, row_bytes, x, in, values, acc);
      packed += kUnit / 2;
      x += kUnit;
    };
    if (w.block_size == kUnit) {
      add();
      continue;
    }
    for (int64_t at = 0; at < w.block_size; at += 2 * kUnit) {
      prefetch(ahead, kCount * kUnit);
      ahead += kCount * kUnit;
      add();
      add();
    }
  }
  store_sums(acc, sums, stride);
}

template <int kTokens>
void multiply_tokens(const FourBitRows& w, const uint16_t* x, int64_t begin, int64_t end,
                     float* sums, int64_t stride) {
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

void lay_out_avx512_bfloat16(const void* x, int64_t in, void* laid_out) {
  // Word j of lane l takes element 4 j + (l ^ 1).
  alignas(64) uint16_t order[kUnit];
  for (int l = 0; l < 4; ++l)
    for (int j = 0; j < 8; ++j) order[8 * l + j] = static_cast<uint16_t>(4 * j + (l ^ 1));
  const __m512i index = _mm512_load_si512(order);
  for (int64_t i = 0; i < in; i += kUnit)
    _mm512_storeu_si512(
        static_cast<uint16_t*>(laid_out) + i,
        _mm512_permutexvar_epi16(index, _mm512_loadu_si512(static_cast<const uint16_t*>(x) + i)));
}

void multiply_avx512_bfloat16(const FourBitRows& w, const void* x, int64_t tokens, int64_t begin,
                              int64_t end, float* sums, int64_t stride) {
  const auto* from = static_cast<const uint16_t*>(x);
  for_tokens(tokens, [&](int64_t t, auto count) {
    multiply_tokens<count>(w, from + t * w.in, begin, end, sums + t * stride, stride);
  });
}

}  // namespace qlora::quant::cpu
#endif
