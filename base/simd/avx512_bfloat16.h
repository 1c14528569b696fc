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
using avx512::raised_fields;
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

}  // namespace qlora::simd::avx512_bfloat16
