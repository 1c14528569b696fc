// Decoder of nibbles for AVX-512 (F + BW): a register holds 32 bf16 or fp16 entries, and vpermw
// looks 32 codes up at once.
#ifdef __x86_64__
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "quant/grouped/grouped_decoders.h"

#define QLORA_AVX512 __attribute__((target("avx512f,avx512bw")))

namespace qlora::quant::cpu {
namespace {

// What the 16 codes of a group mean.
QLORA_AVX512 inline __m512 values_of(float zero, float scale) {
  const __m512 codes = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_mul_ps(_mm512_sub_ps(codes, _mm512_set1_ps(zero)), _mm512_set1_ps(scale));
}

// fp32 -> bf16 in the upper half of each lane: to nearest, ties to even; NaN stays NaN.
// (vcvtneps2bf16 would flush subnormals.)
QLORA_AVX512 inline __m512i round_to_bfloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
}

// The 16 values as 16-bit words, twice over: vpermw uses 5 bits of an index, of which only 4 shall
// matter.
QLORA_AVX512 inline __m512i word_table(__m512 values, ElementType type) {
  if (type == ElementType::kFloat16)
    return _mm512_broadcast_i64x4(
        _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  const __m512i upper_halves =
      _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 31, 29, 27, 25,
                       23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutexvar_epi16(upper_halves, round_to_bfloat16(values));
}

// 16 bytes -> 32 words whose low 4 bits are the codes in their order: a byte in 32 bits stays for
// its low code, and lies shifted by 12 for its high one.
QLORA_AVX512 inline __m512i code_words(const uint8_t* codes) {
  const __m512i bytes =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  return _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12));
}

// 8 bytes -> 16 double words, likewise.
QLORA_AVX512 inline __m512i code_lanes(const uint8_t* codes) {
  const __m512i bytes =
      _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  return _mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 28));
}

QLORA_AVX512 inline int64_t columns_of_group(const GroupedRow& row, int64_t first) {
  const int64_t left = row.columns - first;
  return left < row.group_size ? left : row.group_size;
}

QLORA_AVX512 void decode_words(const GroupedRow& row, ElementType type, uint16_t* out) {
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const __m512i words = word_table(values_of(row.zeros[g], row.scales[g]), type);
    for (int64_t left = columns_of_group(row, first); left > 0; left -= 32, codes += 16, out += 32)
      _mm512_storeu_si512(out, _mm512_permutexvar_epi16(code_words(codes), words));
  }
}

QLORA_AVX512 void decode_floats(const GroupedRow& row, float* out) {
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const __m512 values = values_of(row.zeros[g], row.scales[g]);
    for (int64_t left = columns_of_group(row, first); left > 0; left -= 16, codes += 8, out += 16)
      _mm512_storeu_ps(out, _mm512_permutexvar_ps(code_lanes(codes), values));
  }
}

}  // namespace

void decode_nibbles_avx512(const GroupedRow& row, ElementType type, void* out) {
  if (type == ElementType::kFloat32) return decode_floats(row, static_cast<float*>(out));
  decode_words(row, type, static_cast<uint16_t*>(out));
}

}  // namespace qlora::quant::cpu
#endif
