// Vectors of 8 floats for AVX2, FMA and F16C; see base/simd/for_each.h. Rounds to bf16 as
// base/bfloat16.h does, to fp16 as torch does.
#pragma once

#include <cstdint>

#include "base/element.h"

namespace qlora::simd::avx2 {

using Vector = __m256;
constexpr int kLanes = 8;
constexpr int kRegisters = 16;

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector all(float value) { return _mm256_set1_ps(value); }
inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Vector divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
// a b + c, rounded once.
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
// The second where either is a NaN.
inline Vector greater(Vector a, Vector b) { return _mm256_max_ps(a, b); }
// Each element of a where x is below the limit, of b elsewhere.
inline Vector where_below(Vector x, Vector limit, Vector a, Vector b) {
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, limit, _CMP_LT_OQ));
}

inline Vector load(const float* from) { return _mm256_loadu_ps(from); }
inline Vector load(const uint16_t* from) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vector load(const Float16* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

inline void store(Vector values, float* to) { _mm256_storeu_ps(to, values); }
// As bf16 in the upper half of each lane.
inline __m256i bfloat16_bits(Vector values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(sum, _mm256_set1_epi32(0x7fc00000), nan);
}
inline void store(Vector values, uint16_t* to) {
  const __m256i upper = _mm256_srli_epi32(bfloat16_bits(values), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
inline void store(Vector values, Float16* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// 2^n of whole numbers n in [-126, 127].
inline Vector power_of_two(Vector n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
inline Vector floor(Vector x) { return _mm256_floor_ps(x); }
// Lanes of `below` where x < bound, else of `value`.
inline Vector choose_below(Vector x, Vector bound, Vector below, Vector value) {
  return _mm256_blendv_ps(value, below, _mm256_cmp_ps(x, bound, _CMP_LT_OQ));
}

// kLanes bytes as floats: the low halves, the high halves, or as signed or unsigned numbers.
inline __m256i bytes_at(const uint8_t* from) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
inline Vector low_nibbles(const uint8_t* from) {
  return _mm256_cvtepi32_ps(_mm256_and_si256(bytes_at(from), _mm256_set1_epi32(15)));
}
inline Vector high_nibbles(const uint8_t* from) {
  return _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes_at(from), 4));
}
inline Vector signed_bytes(const uint8_t* from) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
inline Vector unsigned_bytes(const uint8_t* from) { return _mm256_cvtepi32_ps(bytes_at(from)); }
// kLanes bytes as words of 32 bits.
inline Vector byte_words(const uint8_t* from) { return _mm256_castsi256_ps(bytes_at(from)); }
// kLanes numbers of type E4M3 but NaN (base/float8.h).
inline Vector e4m3_bytes(const uint8_t* from) {
  const __m128i bytes = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  const __m128i sign = _mm_slli_epi16(_mm_and_si128(bytes, _mm_set1_epi16(0x80)), 8);
  const __m128i magnitude = _mm_slli_epi16(_mm_and_si128(bytes, _mm_set1_epi16(0x7f)), 7);
  return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, magnitude)), _mm256_set1_ps(256.0f));
}
// An fp16 number that may lie unaligned.
inline float half_at(const uint8_t* from) {
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_loadu_si16(from)));
}

// To nearest, ties to even; NaN stays NaN.
inline Vector rounded_to_bfloat16(Vector values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i upper = _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xffff0000)));
  return _mm256_blendv_ps(_mm256_castsi256_ps(upper), values,
                          _mm256_cmp_ps(values, values, _CMP_UNORD_Q));
}
inline Vector rounded_to_float16(Vector values) {
  return _mm256_cvtph_ps(_mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// 16 floats that codes of 4 bits look up.
struct Table {
  Vector lower, upper;  // codes 0..7 and 8..15
};
inline Table table_of(const float* values) { return {load(values), load(values + 8)}; }
// Lane l: word l % 4 of 16 bytes, shifted right by nibbles number first + l / 4; what counts of it
// are the lowest 4 bits.
inline __m256i nibble_codes(const uint8_t* packed, int first) {
  const __m256i twice =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m256i shifts = _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0);
  return _mm256_srlv_epi32(twice, _mm256_add_epi32(shifts, _mm256_set1_epi32(4 * first)));
}
// Lane l: byte l / 2 of kLanes / 2, shifted right by 4 where l is odd; what counts of it are the
// lowest 4 bits.
inline __m256i nibbles_in_turn(const uint8_t* packed) {
  const __m256i bytes = _mm256_cvtepu8_epi64(_mm_loadu_si32(packed));
  return _mm256_or_si256(bytes, _mm256_slli_epi64(bytes, 28));
}
// kLanes bytes, of which the low halves are codes, or the high ones.
inline __m256i low_codes(const uint8_t* from) { return bytes_at(from); }
inline __m256i high_codes(const uint8_t* from) { return _mm256_srli_epi32(bytes_at(from), 4); }
inline Vector look_up(const Table& table, __m256i codes) {
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.lower, codes),
                          _mm256_permutevar8x32_ps(table.upper, codes),
                          _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}

// Words in the lanes: 32 bits from bit `shift`, 1 to 31, of `low` on, followed by those of `high`.
inline Vector spanning_words(Vector low, Vector high, int shift) {
  return _mm256_castsi256_ps(
      _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(low), shift),
                      _mm256_slli_epi32(_mm256_castps_si256(high), 32 - shift)));
}
// Words moved by `bits` bits, to the left where that is below 0.
inline Vector shifted_right(Vector words, int bits) {
  const __m256i lanes = _mm256_castps_si256(words);
  return _mm256_castsi256_ps(bits < 0 ? _mm256_slli_epi32(lanes, -bits)
                                      : _mm256_srli_epi32(lanes, bits));
}
// 2^(23 - bit) + bits [bit, bit + bits) of words, as floats; bit + bits is at most 23.
inline Vector raised_in_place(Vector words, int bit, int bits) {
  const __m256i field =
      _mm256_and_si256(_mm256_castps_si256(words), _mm256_set1_epi32(((1 << bits) - 1) << bit));
  return _mm256_castsi256_ps(_mm256_or_si256(field, _mm256_set1_epi32((127 + 23 - bit) << 23)));
}
// Lane l: byte 2 l, then byte 2 l + 1 in the upper half.
inline Vector byte_pairs(const uint8_t* from) {
  return _mm256_castsi256_ps(
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
// Rounded to elements of 16 bits, the first in the lower halves of the lanes; of numbers that are
// zero, normal or infinite. To bf16: the upper halves, which gain one where the lower ones are
// above 2^15, or equal to it and the upper ones odd.
inline Vector ordinary_pairs(Vector first, Vector second, const uint16_t* /*type*/) {
  const __m256i a = _mm256_castps_si256(first), b = _mm256_castps_si256(second);
  const __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa);
  const __m256i lower = _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
  const __m256i even = _mm256_andnot_si256(upper, _mm256_set1_epi16(1));
  return _mm256_castsi256_ps(
      _mm256_add_epi16(upper, _mm256_srli_epi16(_mm256_subs_epu16(lower, even), 15)));
}
inline Vector ordinary_pairs(Vector first, Vector second, const Float16* /*type*/) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const __m256i upper = _mm256_cvtepu16_epi32(_mm256_cvtps_ph(second, kRounding));
  return _mm256_castsi256_ps(_mm256_or_si256(
      _mm256_cvtepu16_epi32(_mm256_cvtps_ph(first, kRounding)), _mm256_slli_epi32(upper, 16)));
}

inline float sum_of(Vector v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// A square of floats, mirrored at its diagonal.
[[gnu::always_inline]] inline void transpose(Vector (&rows)[kLanes]) {
  Vector t[kLanes];
  for (int i = 0; i < kLanes; i += 4) {  // squares of 4 floats, in each half of the registers
    const Vector a = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    const Vector b = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    const Vector c = _mm256_unpacklo_ps(rows[i + 2], rows[i + 3]);
    const Vector d = _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
  }
}

}  // namespace qlora::simd::avx2
