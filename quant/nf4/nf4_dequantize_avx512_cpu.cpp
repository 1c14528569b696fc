// Block decoder for AVX-512 (F + BW): a register holds 32 bf16 or fp16 entries, and vpermw looks 32
// nibbles up at once.
#ifdef __x86_64__
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "quant/nf4/nf4_block_decoders.h"

#define QLORA_AVX512 __attribute__((target("avx512f,avx512bw")))

namespace qlora::quant::cpu {
namespace {

// fp32 -> bf16 in the upper half of each lane: to nearest, ties to even; NaN stays NaN.
// (vcvtneps2bf16 would flush subnormals.)
QLORA_AVX512 inline __m512i round_to_bfloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
}

// The 16 products as 16-bit words, twice over: vpermw uses 5 bits of an index, of which only 4
// shall matter.
QLORA_AVX512 inline __m512i word_table(__m512 products, ElementType type) {
  if (type == ElementType::kFloat16)
    return _mm512_broadcast_i64x4(
        _mm512_cvtps_ph(products, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  const __m512i upper_halves =
      _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 31, 29, 27, 25,
                       23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutexvar_epi16(upper_halves, round_to_bfloat16(products));
}

// 16 bytes -> 32 words whose low 4 bits are the nibbles in element order.
QLORA_AVX512 inline __m512i nibble_words(const uint8_t* packed) {
  const __m512i bytes =
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m512i twice =
      _mm512_set_epi8(15, 15, 15, 15, 14, 14, 14, 14, 13, 13, 13, 13, 12, 12, 12, 12, 11, 11, 11,
                      11, 10, 10, 10, 10, 9, 9, 9, 9, 8, 8, 8, 8, 7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5,
                      5, 4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  const __m512i shifts = _mm512_set1_epi32(4);  // even words by 4, odd words by 0
  return _mm512_srlv_epi16(_mm512_shuffle_epi8(bytes, twice), shifts);
}

QLORA_AVX512 void decode_words(const FourBitDequantizeArguments& a, int64_t first, int64_t last,
                               uint16_t* out) {
  const __m512 table = _mm512_loadu_ps(code_table(a.code));
  const uint8_t* packed = a.packed + first * a.block_size / 2;
  for (int64_t b = first; b < last; ++b) {
    const __m512 products = _mm512_mul_ps(table, _mm512_set1_ps(block_scale(a.scales, b)));
    const __m512i words = word_table(products, a.type);
    for (int64_t i = 0; i < a.block_size; i += 32, packed += 16, out += 32)
      _mm512_storeu_si512(out, _mm512_permutexvar_epi16(nibble_words(packed), words));
  }
}

QLORA_AVX512 void decode_floats(const FourBitDequantizeArguments& a, int64_t first, int64_t last,
                                float* out) {
  const __m512 table = _mm512_loadu_ps(code_table(a.code));
  const uint8_t* packed = a.packed + first * a.block_size / 2;
  for (int64_t b = first; b < last; ++b) {
    const __m512 products = _mm512_mul_ps(table, _mm512_set1_ps(block_scale(a.scales, b)));
    for (int64_t i = 0; i < a.block_size; i += 16, packed += 8, out += 16) {
      // A byte in 64 bits -> its nibbles in two 32-bit lanes; vpermps ignores the bits above 4.
      const __m512i bytes =
          _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed)));
      const __m512i lanes =
          _mm512_or_si512(_mm512_srli_epi64(bytes, 4), _mm512_slli_epi64(bytes, 32));
      _mm512_storeu_ps(out, _mm512_permutexvar_ps(lanes, products));
    }
  }
}

}  // namespace

void decode_blocks_avx512(const FourBitDequantizeArguments& a, int64_t first, int64_t last,
                          void* out) {
  if (a.type == ElementType::kFloat32)
    return decode_floats(a, first, last, static_cast<float*>(out));
  decode_words(a, first, last, static_cast<uint16_t*>(out));
}

}  // namespace qlora::quant::cpu
#endif
