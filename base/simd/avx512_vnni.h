// The vectors of base/simd/avx512.h where four 8-bit codes are multiplied at once (AVX-512 VNNI);
// see base/simd/codes.h.
#pragma once

#include "base/simd/avx512.h"
#include "base/simd/codes.h"

namespace qlora::simd::avx512_vnni {

using avx512::add;
using avx512::all;
using avx512::choose_below;
using avx512::CodeWords;
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
using avx512::store;
using avx512::subtract;
using avx512::transpose;
using avx512::Vector;
using avx512::zero;

constexpr int kCodes = 4;

inline CodeWords add_products(CodeWords sum, CodeWords w, CodeWords x) {
  return (CodeWords)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
}

}  // namespace qlora::simd::avx512_vnni
