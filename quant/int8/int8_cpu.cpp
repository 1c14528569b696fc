#include <atomic>
#include <bit>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/elements/element_conversion.h"
#include "quant/int8/int8_kernels.h"

namespace qlora::quant::cpu {
namespace {

template <typename T>
[[gnu::always_inline]] inline float as_half(T value, bool saturate) {
  float x = to_float(value);
  if constexpr (sizeof(T) == 2 && std::is_same_v<T, Float16>) return x;
  const float bounded = x > kLargestHalf ? kLargestHalf : x < -kLargestHalf ? -kLargestHalf : x;
  return float16_to_float(float_to_float16(saturate ? bounded : x));
}

// The row as fp16 values in fp32, the largest magnitude below the threshold, and whether anything
// reaches it. Compared as integers, so that a NaN is the largest of all.
template <typename T>
[[gnu::always_inline]] inline bool round_row(const T* x, int64_t count, float threshold,
                                             bool saturate, float* rounded, float* absmax) {
  const uint32_t limit = threshold > 0 ? std::bit_cast<uint32_t>(threshold) : 0xffffffffu;
  uint32_t most = 0, beyond = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = as_half(x[i], saturate);
    const uint32_t magnitude = std::bit_cast<uint32_t>(value) & 0x7fffffffu;
    const bool outlier = (magnitude >= limit) & (magnitude <= 0x7f800000u);
    const uint32_t counted = outlier ? 0u : magnitude;
    most = counted > most ? counted : most;
    beyond |= outlier ? 1u : 0u;
    rounded[i] = outlier ? 0.0f : value;
  }
  *absmax = std::bit_cast<float>(most);
  return beyond != 0;
}

// One function an element type: target_clones do not apply to templates.
QLORA_VECTORIZED bool round_row_of(const float* x, int64_t n, float t, bool s, float* r, float* a) {
  return round_row(x, n, t, s, r, a);
}
QLORA_VECTORIZED bool round_row_of(const BFloat16* x, int64_t n, float t, bool s, float* r,
                                   float* a) {
  return round_row(x, n, t, s, r, a);
}
QLORA_VECTORIZED bool round_row_of(const Float16* x, int64_t n, float t, bool s, float* r,
                                   float* a) {
  return round_row(x, n, t, s, r, a);
}

QLORA_VECTORIZED void encode_row(const float* rounded, int64_t count, float scale, int8_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = __builtin_rintf(rounded[i] * scale);
    codes[i] = static_cast<int8_t>(std::fabs(scaled) <= 127.0f ? scaled : 0.0f);
  }
}

template <typename T>
void mark_outliers(const T* x, int64_t count, float threshold, bool saturate, uint8_t* outliers) {
  for (int64_t i = 0; i < count; ++i)
    if (std::fabs(as_half(x[i], saturate)) >= threshold)
      std::atomic_ref<uint8_t>(outliers[i]).store(1, std::memory_order_relaxed);
}

template <typename T>
void quantize(const Int8QuantizeArguments& a) {
  const T* x = static_cast<const T*>(a.x);
  parallel_for(a.rows, std::max<int64_t>(1, 16384 / a.columns), [&](int64_t begin, int64_t end) {
    std::vector<float> rounded(static_cast<size_t>(a.columns));
    for (int64_t row = begin; row < end; ++row) {
      const T* values = x + row * a.columns;
      if (round_row_of(values, a.columns, a.threshold, a.saturate, rounded.data(),
                       a.absmax + row) &&
          a.outliers) {
        mark_outliers(values, a.columns, a.threshold, a.saturate, a.outliers);
      }
      // Two roundings, as torch divides a number by a tensor. A row of zeros gives 0 * inf:
      // encode_row makes that 0, as its absmax says.
      encode_row(rounded.data(), a.columns, (1.0f / a.absmax[row]) * 127.0f,
                 a.codes + row * a.columns);
    }
  });
}

template <typename T>
[[gnu::always_inline]] inline void scale_row(const int32_t* products, float row_absmax,
                                             const float* column_absmax, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i)
    store(static_cast<float>(products[i]) * (row_absmax * column_absmax[i]) * kOne127Squared,
          out[i]);
}
QLORA_VECTORIZED void scale_row_to(const int32_t* p, float r, const float* c, int64_t n,
                                   float* out) {
  scale_row(p, r, c, n, out);
}
QLORA_VECTORIZED void scale_row_to(const int32_t* p, float r, const float* c, int64_t n,
                                   BFloat16* out) {
  scale_row(p, r, c, n, out);
}
QLORA_VECTORIZED void scale_row_to(const int32_t* p, float r, const float* c, int64_t n,
                                   Float16* out) {
  scale_row(p, r, c, n, out);
}

template <typename T>
[[gnu::always_inline]] inline void decode_row(const int8_t* codes, float absmax, int64_t count,
                                              T* out) {
  for (int64_t i = 0; i < count; ++i)
    store(static_cast<float>(codes[i]) * absmax * kOne127th, out[i]);
}
QLORA_VECTORIZED void decode_row_to(const int8_t* c, float a, int64_t n, float* out) {
  decode_row(c, a, n, out);
}
QLORA_VECTORIZED void decode_row_to(const int8_t* c, float a, int64_t n, BFloat16* out) {
  decode_row(c, a, n, out);
}
QLORA_VECTORIZED void decode_row_to(const int8_t* c, float a, int64_t n, Float16* out) {
  decode_row(c, a, n, out);
}

// Calls body with a null pointer of the element type.
template <typename Body>
void for_type(ElementType type, const Body& body) {
  switch (type) {
    case ElementType::kFloat32:
      return body(static_cast<float*>(nullptr));
    case ElementType::kBFloat16:
      return body(static_cast<BFloat16*>(nullptr));
    case ElementType::kFloat16:
      return body(static_cast<Float16*>(nullptr));
  }
}

template <typename T, typename Row>
void for_each_row(int64_t rows, int64_t columns, void* out, const Row& write) {
  parallel_for(rows, std::max<int64_t>(1, 16384 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) write(row, static_cast<T*>(out) + row * columns);
  });
}

}  // namespace

void quantize_int8(const Int8QuantizeArguments& a) {
  if (has_avx512_bfloat16() && a.type == ElementType::kBFloat16)
    return quantize_int8_bfloat16_avx512(a);
  for_type(a.type, [&]<typename T>(T*) { quantize<T>(a); });
}

void scale_int8_products(const Int8ScaleArguments& a) {
  for_type(a.type, [&]<typename T>(T*) {
    for_each_row<T>(a.rows, a.columns, a.out, [&](int64_t row, T* out) {
      scale_row_to(a.products + row * a.columns, a.row_absmax[row], a.column_absmax, a.columns,
                   out);
    });
  });
}

void dequantize_int8(const Int8DequantizeArguments& a) {
  for_type(a.type, [&]<typename T>(T*) {
    for_each_row<T>(a.rows, a.columns, a.out, [&](int64_t row, T* out) {
      decode_row_to(a.codes + row * a.columns, a.absmax[row], a.columns, out);
    });
  });
}

}  // namespace qlora::quant::cpu
