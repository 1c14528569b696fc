// The vectors of base/simd/avx512.h where bf16 is rounded to by an instruction of its own.
#pragma once

#include <cstdint>

#include "base/simd/avx512.h"

namespace qlora::simd::avx512_bfloat16 {

using avx512::add;
using avx512::all;
using avx512::byte_pairs;
using avx512::choose_below;
using avx512::divide;
using avx512::floor;
using avx512::greater;
using avx512::kLanes;
using avx512::kRegisters;
using avx512::load;
using avx512::multiply;
using avx512::multiply_add;
using avx512::power_of_two;
using avx512::raised_in_place;
using avx512::shifted_right;
using avx512::spanning_words;
using avx512::store;
using avx512::subtract;
using avx512::transpose;
using avx512::unsigned_bytes;
using avx512::Vector;
using avx512::zero;

// The instruction would take subnormal numbers for zero.
inline Vector ordinary_pairs(Vector first, Vector second, const uint16_t* /*type*/) {
  const __m512i in_turn =
      _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                       21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(in_turn, halves));
}
inline Vector ordinary_pairs(Vector first, Vector second, const Float16* type) {
  return avx512::ordinary_pairs(first, second, type);
}

// Rounded to bf16, the first in the lower half of the vector; of ordinary numbers, too.
inline Vector rounded_halves(Vector first, Vector second, const uint16_t* /*type*/) {
  return (Vector)_mm512_cvtne2ps_pbh(second, first);
}
// In which half of which vector transpose_halves() takes each of 32 columns of 16 elements.
constexpr int column_of_half(int vector, int half, const uint16_t* /*type*/) {
  return vector + (vector & 8) + 8 * half;
}
// 32 columns to 16 rows.
[[gnu::always_inline]] inline void transpose_halves(Vector (&columns)[kLanes],
                                                    const uint16_t* /*type*/) {
  __m512i t[2][8];
  for (int s = 0; s < 2; ++s) {  // squares of 8 elements, in each quarter of the registers
    __m512i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
      const __m512i first = _mm512_castps_si512(columns[8 * s + i]),
                    second = _mm512_castps_si512(columns[8 * s + i + 1]);
      a[i] = _mm512_unpacklo_epi16(first, second);
      a[i + 1] = _mm512_unpackhi_epi16(first, second);
    }
    for (int i = 0; i < 8; i += 4)
      for (int j = 0; j < 2; ++j) {
        b[i + 2 * j] = _mm512_unpacklo_epi32(a[i + j], a[i + j + 2]);
        b[i + 2 * j + 1] = _mm512_unpackhi_epi32(a[i + j], a[i + j + 2]);
      }
    for (int j = 0; j < 4; ++j) {
      t[s][2 * j] = _mm512_unpacklo_epi64(b[j], b[j + 4]);
      t[s][2 * j + 1] = _mm512_unpackhi_epi64(b[j], b[j + 4]);
    }
  }
  for (int i = 0; i < 8; ++i) {
    columns[i] = _mm512_castsi512_ps(_mm512_shuffle_i64x2(t[0][i], t[1][i], 0x88));
    columns[i + 8] = _mm512_castsi512_ps(_mm512_shuffle_i64x2(t[0][i], t[1][i], 0xdd));
  }
}

}  // namespace qlora::simd::avx512_bfloat16
