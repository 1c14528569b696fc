// A training step quantizes the input of every layer. Plain loops, in which the conversions to fp16
// and the comparisons stay many instructions, take 13 times as long.
#include "quant/int8/int8_kernels.h"

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>
#include <atomic>
#include <bit>
#include <vector>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"

namespace qlora::quant::cpu {
namespace {
using namespace avx512;

// 16 elements as fp16 holds them. A NaN stays one.
[[gnu::always_inline]] inline __m512 as_half(const uint16_t* x, __mmask16 mask, bool saturate) {
  __m512 value = load_bfloat16(x, mask);
  if (saturate) {
    value = _mm512_min_ps(_mm512_set1_ps(kLargestHalf), value);
    value = _mm512_max_ps(_mm512_set1_ps(-kLargestHalf), value);
  }
  return _mm512_cvtph_ps(_mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// As round_row in int8_cpu.cpp, which see: magnitudes are compared as integers.
float round_row(const Int8QuantizeArguments& a, const uint16_t* x, float* rounded) {
  const uint32_t limit = a.threshold > 0 ? std::bit_cast<uint32_t>(a.threshold) : 0xffffffffu;
  const __m512i limits = _mm512_set1_epi32(static_cast<int>(limit));
  const __m512i infinite = _mm512_set1_epi32(0x7f800000);
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < a.columns; i += kWords) {
    const __m512 value = as_half(x + i, first_lanes(a.columns - i), a.saturate);
    const __m512i magnitude =
        _mm512_and_si512(_mm512_castps_si512(value), _mm512_set1_epi32(0x7fffffff));
    const __mmask16 outlier =
        _mm512_cmpge_epu32_mask(magnitude, limits) & _mm512_cmple_epu32_mask(magnitude, infinite);
    const auto counted = static_cast<__mmask16>(~outlier);
    most = _mm512_mask_max_epu32(most, counted, most, magnitude);
    _mm512_storeu_ps(rounded + i, _mm512_maskz_mov_ps(counted, value));
    if (a.outliers)
      for (uint32_t left = outlier; left != 0; left &= left - 1)
        std::atomic_ref<uint8_t>(a.outliers[i + std::countr_zero(left)])
            .store(1, std::memory_order_relaxed);
  }
  return std::bit_cast<float>(static_cast<uint32_t>(_mm512_reduce_max_epu32(most)));
}

void encode_row(const float* rounded, int64_t count, float scale, int8_t* codes) {
  for (int64_t i = 0; i < count; i += kWords) {
    const __m512 scaled =
        _mm512_roundscale_ps(_mm512_mul_ps(_mm512_loadu_ps(rounded + i), _mm512_set1_ps(scale)),
                             _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __mmask16 holds =
        _mm512_cmp_ps_mask(_mm512_abs_ps(scaled), _mm512_set1_ps(127.0f), _CMP_LE_OQ);
    _mm512_mask_cvtepi32_storeu_epi8(codes + i, first_lanes(count - i),
                                     _mm512_maskz_cvtps_epi32(holds, scaled));
  }
}

}  // namespace

void quantize_int8_bfloat16_avx512(const Int8QuantizeArguments& a) {
  const auto* x = static_cast<const uint16_t*>(a.x);
  parallel_for(a.rows, std::max<int64_t>(1, 16384 / a.columns), [&](int64_t begin, int64_t end) {
    std::vector<float> rounded(static_cast<size_t>(padded(a.columns)));
    for (int64_t row = begin; row < end; ++row) {
      const float absmax = round_row(a, x + row * a.columns, rounded.data());
      a.absmax[row] = absmax;
      // Two roundings, as torch divides a number by a tensor.
      encode_row(rounded.data(), a.columns, (1.0f / absmax) * 127.0f, a.codes + row * a.columns);
    }
  });
}

}  // namespace qlora::quant::cpu
