// Vectors of 16 floats for AVX-512 F, BW, DQ and VL; see base/simd/for_each.h. Rounds to bf16 as
// base/bfloat16.h does, to fp16 as torch does.
#pragma once

#include <cstdint>

#include "base/element.h"

namespace qlora::simd::avx512 {

using Vector = __m512;
constexpr int kLanes = 16;
constexpr int kRegisters = 32;

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector all(float value) { return _mm512_set1_ps(value); }
inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
// a b + c, rounded once.
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
// The second where either is a NaN.
inline Vector greater(Vector a, Vector b) { return _mm512_max_ps(a, b); }
// Each element of a where x is below the limit, of b elsewhere.
inline Vector where_below(Vector x, Vector limit, Vector a, Vector b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), b, a);
}

inline Vector load(const float* from) { return _mm512_loadu_ps(from); }
inline Vector load(const uint16_t* from) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Vector load(const Float16* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline void store(Vector values, float* to) { _mm512_storeu_ps(to, values); }
// As bf16 in the upper half of each lane.
inline __m512i bfloat16_bits(Vector values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(0x7fc00000));
}
inline void store(Vector values, uint16_t* to) {
  const __m512i upper = _mm512_srli_epi32(bfloat16_bits(values), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(upper));
}
inline void store(Vector values, Float16* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// 2^n of whole numbers n in [-126, 127].
inline Vector power_of_two(Vector n) { return _mm512_scalef_ps(all(1.0f), n); }
inline Vector floor(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

// Lanes of `below` where x < bound, else of `value`.
inline Vector choose_below(Vector x, Vector bound, Vector below, Vector value) {
  return _mm512_mask_mov_ps(value, _mm512_cmp_ps_mask(x, bound, _CMP_LT_OQ), below);
}

// kLanes bytes as floats: the low halves, the high halves, or as signed or unsigned numbers.
inline __m512i bytes_at(const uint8_t* from) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline Vector low_nibbles(const uint8_t* from) {
  return _mm512_cvtepi32_ps(_mm512_and_si512(bytes_at(from), _mm512_set1_epi32(15)));
}
inline Vector high_nibbles(const uint8_t* from) {
  return _mm512_cvtepi32_ps(_mm512_srli_epi32(bytes_at(from), 4));
}
inline Vector signed_bytes(const uint8_t* from) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
inline Vector unsigned_bytes(const uint8_t* from) { return _mm512_cvtepi32_ps(bytes_at(from)); }
// kLanes bytes as words of 32 bits.
inline Vector byte_words(const uint8_t* from) { return _mm512_castsi512_ps(bytes_at(from)); }
// kLanes numbers of type E4M3 but NaN (base/float8.h).
inline Vector e4m3_bytes(const uint8_t* from) {
  const __m256i bytes =
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(bytes, _mm256_set1_epi16(0x80)), 8);
  const __m256i magnitude = _mm256_slli_epi16(_mm256_and_si256(bytes, _mm256_set1_epi16(0x7f)), 7);
  return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(sign, magnitude)), _mm512_set1_ps(256.0f));
}
// An fp16 number that may lie unaligned.
inline float half_at(const uint8_t* from) {
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_loadu_si16(from)));
}

// To nearest, ties to even; NaN stays NaN.
inline Vector rounded_to_bfloat16(Vector values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(
      _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xffff0000))), nan, bits));
}
inline Vector rounded_to_float16(Vector values) {
  return _mm512_cvtph_ps(_mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// 16 floats that codes of 4 bits look up.
struct Table {
  Vector values;
};
inline Table table_of(const float* values) { return {load(values)}; }
// Lane l: word l % 4 of 16 bytes, shifted right by nibbles number first + l / 4; what counts of it
// are the lowest 4 bits.
inline __m512i nibble_codes(const uint8_t* packed, int first) {
  const __m512i four =
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m512i shifts = _mm512_set_epi32(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0);
  return _mm512_srlv_epi32(four, _mm512_add_epi32(shifts, _mm512_set1_epi32(4 * first)));
}
// Lane l: byte l / 2 of kLanes / 2, shifted right by 4 where l is odd; what counts of it are the
// lowest 4 bits.
inline __m512i nibbles_in_turn(const uint8_t* packed) {
  const __m512i bytes =
      _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed)));
  return _mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 28));
}
// kLanes bytes, of which the low halves are codes, or the high ones.
inline __m512i low_codes(const uint8_t* from) { return bytes_at(from); }
inline __m512i high_codes(const uint8_t* from) { return _mm512_srli_epi32(bytes_at(from), 4); }
inline Vector look_up(const Table& table, __m512i codes) {
  return _mm512_permutexvar_ps(codes, table.values);
}

// Words in the lanes: 32 bits from bit `shift`, 1 to 31, of `low` on, followed by those of `high`.
inline Vector spanning_words(Vector low, Vector high, int shift) {
  return _mm512_castsi512_ps(
      _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), shift),
                      _mm512_slli_epi32(_mm512_castps_si512(high), 32 - shift)));
}
// Words moved by `bits` bits, to the left where that is below 0.
inline Vector shifted_right(Vector words, int bits) {
  const __m512i lanes = _mm512_castps_si512(words);
  return _mm512_castsi512_ps(bits < 0 ? _mm512_slli_epi32(lanes, -bits)
                                      : _mm512_srli_epi32(lanes, bits));
}
// 2^(23 - bit) + bits [bit, bit + bits) of words, as floats; bit + bits is at most 23.
inline Vector raised_in_place(Vector words, int bit, int bits) {
  constexpr int kAndOr = 0xea;  // of three bits: a & b | c
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
      _mm512_castps_si512(words), _mm512_set1_epi32(((1 << bits) - 1) << bit),
      _mm512_set1_epi32((127 + 23 - bit) << 23), kAndOr));
}
// Lane l: byte 2 l, then byte 2 l + 1 in the upper half.
inline Vector byte_pairs(const uint8_t* from) {
  return _mm512_castsi512_ps(
      _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
// Rounded to elements of 16 bits, the first in the lower halves of the lanes; of numbers that are
// zero, normal or infinite. To bf16: the upper halves, which gain one where the lower ones are
// above 2^15, or equal to it and the upper ones odd.
inline Vector ordinary_pairs(Vector first, Vector second, const uint16_t* /*type*/) {
  const __m512i a = _mm512_castps_si512(first), b = _mm512_castps_si512(second);
  const __m512i upper = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(a, 16), b);
  const __m512i lower = _mm512_mask_blend_epi16(0xaaaaaaaa, a, _mm512_slli_epi32(b, 16));
  const __m512i even = _mm512_andnot_si512(upper, _mm512_set1_epi16(1));
  return _mm512_castsi512_ps(
      _mm512_add_epi16(upper, _mm512_srli_epi16(_mm512_subs_epu16(lower, even), 15)));
}
inline Vector ordinary_pairs(Vector first, Vector second, const Float16* /*type*/) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const __m512i upper = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(second, kRounding));
  return _mm512_castsi512_ps(_mm512_or_si512(
      _mm512_cvtepu16_epi32(_mm512_cvtps_ph(first, kRounding)), _mm512_slli_epi32(upper, 16)));
}

inline float sum_of(Vector v) { return _mm512_reduce_add_ps(v); }

// A square of floats, mirrored at its diagonal.
[[gnu::always_inline]] inline void transpose(Vector (&rows)[kLanes]) {
  Vector t[kLanes];
  for (int i = 0; i < kLanes; i += 4) {  // squares of 4 floats, in each quarter of the registers
    const Vector a = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    const Vector b = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    const Vector c = _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]);
    const Vector d = _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]);
    t[i] = _mm512_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; ++i) {  // a square of 4 such squares
    const Vector a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88);
    const Vector b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
    const Vector c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
    const Vector d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
    rows[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    rows[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    rows[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    rows[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

}  // namespace qlora::simd::avx512
