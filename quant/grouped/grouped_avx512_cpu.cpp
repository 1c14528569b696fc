// Decoders of codes of 1 to 4 bits for AVX-512 (F, BW, VL): a register holds 32 bf16 or fp16
// entries, and vpermw looks 32 codes up at once. What the codes mean is repeated until the register
// is full, so that it does not matter what lies above a code's bits.
#ifdef __x86_64__
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "quant/grouped/grouped_decoders.h"

#define QLORA_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

namespace qlora::quant::cpu {
namespace {

// Lane i: what code i modulo 2^kBits means in a group.
template <int kBits>
QLORA_AVX512 inline __m512 values_of(float zero, float scale) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 codes =
      _mm512_cvtepi32_ps(_mm512_and_si512(lanes, _mm512_set1_epi32((1 << kBits) - 1)));
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

// The 16 values as 16-bit words, twice over.
QLORA_AVX512 inline __m512i word_table(__m512 values, ElementType type) {
  if (type == ElementType::kFloat16)
    return _mm512_broadcast_i64x4(
        _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  const __m512i upper_halves =
      _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 31, 29, 27, 25,
                       23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutexvar_epi16(upper_halves, round_to_bfloat16(values));
}

// A unit's 4 kBits bytes from the beginning of every 16 bytes on.
template <int kBits>
QLORA_AVX512 inline __m512i unit_in_each_quarter(const uint8_t* codes) {
  if constexpr (kBits == 1) return _mm512_broadcastd_epi32(_mm_loadu_si32(codes));
  if constexpr (kBits == 2)
    return _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  if constexpr (kBits == 3) return _mm512_broadcast_i32x4(_mm_maskz_loadu_epi32(7, codes));
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}

// 32 words whose low bits are the codes of a unit in their order.
template <int kBits>
QLORA_AVX512 inline __m512i code_words(__m512i unit) {
  static constexpr CodePlaces<kBits, uint16_t, 32> kPlaces(0);
  const __m512i bytes = _mm512_shuffle_epi8(unit, _mm512_load_si512(kPlaces.bytes));
  return _mm512_srlv_epi16(bytes, _mm512_load_si512(kPlaces.bits));
}

// 16 double words, likewise, from code kFirst on.
template <int kBits, int kFirst>
QLORA_AVX512 inline __m512i code_lanes(__m512i unit) {
  static constexpr CodePlaces<kBits, uint32_t, 16> kPlaces(kFirst);
  const __m512i bytes = _mm512_shuffle_epi8(unit, _mm512_load_si512(kPlaces.bytes));
  return _mm512_srlv_epi32(bytes, _mm512_load_si512(kPlaces.bits));
}

QLORA_AVX512 inline int64_t columns_of_group(const GroupedRow& row, int64_t first) {
  const int64_t left = row.columns - first;
  return left < row.group_size ? left : row.group_size;
}

template <int kBits>
QLORA_AVX512 void decode_words(const GroupedRow& row, ElementType type, uint16_t* out) {
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const __m512i words = word_table(values_of<kBits>(row.zeros[g], row.scales[g]), type);
    for (int64_t left = columns_of_group(row, first); left > 0;
         left -= kCodeUnit, codes += kCodeUnit / 8 * kBits, out += kCodeUnit) {
      const __m512i unit = unit_in_each_quarter<kBits>(codes);
      _mm512_storeu_si512(out, _mm512_permutexvar_epi16(code_words<kBits>(unit), words));
    }
  }
}

template <int kBits>
QLORA_AVX512 void decode_floats(const GroupedRow& row, float* out) {
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const __m512 values = values_of<kBits>(row.zeros[g], row.scales[g]);
    for (int64_t left = columns_of_group(row, first); left > 0;
         left -= kCodeUnit, codes += kCodeUnit / 8 * kBits, out += kCodeUnit) {
      const __m512i unit = unit_in_each_quarter<kBits>(codes);
      _mm512_storeu_ps(out, _mm512_permutexvar_ps(code_lanes<kBits, 0>(unit), values));
      _mm512_storeu_ps(out + 16, _mm512_permutexvar_ps(code_lanes<kBits, 16>(unit), values));
    }
  }
}

}  // namespace

template <int kBits>
void decode_codes_avx512(const GroupedRow& row, ElementType type, void* out) {
  if (type == ElementType::kFloat32) return decode_floats<kBits>(row, static_cast<float*>(out));
  decode_words<kBits>(row, type, static_cast<uint16_t*>(out));
}

template void decode_codes_avx512<1>(const GroupedRow&, ElementType, void*);
template void decode_codes_avx512<2>(const GroupedRow&, ElementType, void*);
template void decode_codes_avx512<3>(const GroupedRow&, ElementType, void*);
template void decode_codes_avx512<4>(const GroupedRow&, ElementType, void*);

}  // namespace qlora::quant::cpu
#endif
