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

// A row as fp16 values in fp32, zeros for what reaches the threshold, and the largest magnitude of
// the others. Compared as integers, so that a NaN is the largest of all.
struct RoundedRow {
  const void* x;
  ElementType type;
  int64_t count;
  int32_t limit;  // the bits of the threshold
  bool saturate;
  float* rounded;
  float* absmax;
};

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/int8/int8_round_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

// Whether anything reaches the threshold.
bool round_row(const RoundedRow& row) {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::round_row(row);
  if (has_avx2()) return simd::avx2::round_row(row);
#endif
  return simd::baseline::round_row(row);
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
  const int32_t limit = a.threshold > 0 ? std::bit_cast<int32_t>(a.threshold) : 0x7fffffff;
  const bool saturate = a.saturate && a.type != ElementType::kFloat16;
  parallel_for(a.rows, std::max<int64_t>(1, 16384 / a.columns), [&](int64_t begin, int64_t end) {
    std::vector<float> rounded(static_cast<size_t>(a.columns));
    for (int64_t row = begin; row < end; ++row) {
      const T* values = x + row * a.columns;
      if (round_row({values, a.type, a.columns, limit, saturate, rounded.data(), a.absmax + row}) &&
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
