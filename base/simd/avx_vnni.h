// The vectors of base/simd/avx2.h where four 8-bit codes are multiplied at once (AVX-VNNI); see
// base/simd/codes.h.
#pragma once

#include "base/simd/avx2.h"
#include "base/simd/codes.h"

namespace qlora::simd::avx_vnni {

using avx2::add;
using avx2::all;
using avx2::choose_below;
using avx2::CodeWords;
using avx2::floor;
using avx2::greater;
using avx2::kLanes;
using avx2::kRegisters;
using avx2::load;
using avx2::multiply;
using avx2::multiply_add;
using avx2::power_of_two;
using avx2::raised_in_place;
using avx2::shifted_right;
using avx2::store;
using avx2::subtract;
using avx2::transpose;
using avx2::Vector;
using avx2::zero;

constexpr int kCodes = 4;

inline CodeWords add_products(CodeWords sum, CodeWords w, CodeWords x) {
  return (CodeWords)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
}

}  // namespace qlora::simd::avx_vnni
