// Products of 8-bit codes, added up exactly in lanes of int32: what instruction sets differ in
// there. Loops that use it include this file before base/simd/for_each.h, and with
// QLORA_SIMD_VNNI defined they are included as simd::avx_vnni and simd::avx512_vnni, too.
//
// A word of 32 bits holds kCodes codes of a row, one after the other:
//
//   2   as numbers of 16 bits, whose two products vpmaddwd adds in 32. (vpmaddubsw takes bytes, but
//       saturates the sum of two products at 16 bits.)
//   4   as bytes, whose four products vpdpbusd adds to the sum in 32 bits. It takes one factor
//       without a sign: codes of weights are raised by 128, and a sum starts at -128 Σ x.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace qlora::simd::baseline {

using CodeWords [[gnu::vector_size(16)]] = int32_t;
constexpr int kCodes = 2;

// Of each lane, sum + the products of the codes of w and x.
inline CodeWords add_products(CodeWords sum, CodeWords w, CodeWords x) {
#ifdef __x86_64__
  return sum + (CodeWords)_mm_madd_epi16((__m128i)w, (__m128i)x);
#else
  return sum + (w << 16 >> 16) * (x << 16 >> 16) + (w >> 16) * (x >> 16);
#endif
}

}  // namespace qlora::simd::baseline

#ifdef __x86_64__
namespace qlora::simd::avx2 {

using CodeWords [[gnu::vector_size(32)]] = int32_t;
constexpr int kCodes = 2;

[[gnu::target("avx2"), gnu::always_inline]] inline CodeWords add_products(CodeWords sum,
                                                                          CodeWords w,
                                                                          CodeWords x) {
  return sum + (CodeWords)_mm256_madd_epi16((__m256i)w, (__m256i)x);
}

}  // namespace qlora::simd::avx2

namespace qlora::simd::avx512 {

using CodeWords [[gnu::vector_size(64)]] = int32_t;
constexpr int kCodes = 2;

[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline CodeWords add_products(CodeWords sum,
                                                                                      CodeWords w,
                                                                                      CodeWords x) {
  return sum + (CodeWords)_mm512_madd_epi16((__m512i)w, (__m512i)x);
}

}  // namespace qlora::simd::avx512
#endif
