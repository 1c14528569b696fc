#include <algorithm>

#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/elements/element_conversion.h"
#include "quant/hqq/hqq_kernels.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a thread is worth waking for
constexpr int64_t kRun = 256;        // elements that are decoded at once

// Elements of one row of the grouped matrix, at most kRun.
struct Run {
  int64_t row, column, count;
};

QLORA_VECTORIZED void take_fields(const uint8_t* packed, int shift, int mask, int64_t count,
                                  float* fields) {
  for (int64_t i = 0; i < count; ++i) fields[i] = static_cast<float>((packed[i] >> shift) & mask);
}
QLORA_VECTORIZED void take_fields(const int32_t* packed, int shift, int mask, int64_t count,
                                  float* fields) {
  for (int64_t i = 0; i < count; ++i) fields[i] = static_cast<float>((packed[i] >> shift) & mask);
}

template <typename T>
[[gnu::always_inline]] inline void widen_all(const T* values, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_float(values[i]);
}
// target_clones do not apply to templates.
QLORA_VECTORIZED void widen(const float* values, int64_t count, float* out) {
  widen_all(values, count, out);
}
QLORA_VECTORIZED void widen(const BFloat16* values, int64_t count, float* out) {
  widen_all(values, count, out);
}
QLORA_VECTORIZED void widen(const Float16* values, int64_t count, float* out) {
  widen_all(values, count, out);
}

QLORA_VECTORIZED void scale_row(float* values, float zero, float scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = (values[i] - zero) * scale;
}
QLORA_VECTORIZED void scale_columns(float* values, const float* zeros, const float* scales,
                                    int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = (values[i] - zeros[i]) * scales[i];
}

template <typename T>
[[gnu::always_inline]] inline void store_all(const float* values, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) store(values[i], out[i]);
}
QLORA_VECTORIZED void store_as(const float* values, int64_t count, float* out) {
  store_all(values, count, out);
}
QLORA_VECTORIZED void store_as(const float* values, int64_t count, BFloat16* out) {
  store_all(values, count, out);
}
QLORA_VECTORIZED void store_as(const float* values, int64_t count, Float16* out) {
  store_all(values, count, out);
}

void take_fields(const HqqDequantizeArguments& a, const Run& run, float* fields) {
  const int64_t place = run.row % a.packed_rows * a.columns + run.column;
  const int part = static_cast<int>(run.row / a.packed_rows);
  const int shift = a.bits * (hqq_parts(a.bits) - 1 - part), mask = (1 << a.bits) - 1;
  if (a.bits == 3)
    take_fields(static_cast<const int32_t*>(a.packed) + place, shift, mask, run.count, fields);
  else
    take_fields(static_cast<const uint8_t*>(a.packed) + place, shift, mask, run.count, fields);
}

void widen(const void* values, ElementType type, int64_t first, int64_t count, float* out) {
  switch (type) {
    case ElementType::kFloat32:
      return widen(static_cast<const float*>(values) + first, count, out);
    case ElementType::kBFloat16:
      return widen(static_cast<const BFloat16*>(values) + first, count, out);
    case ElementType::kFloat16:
      return widen(static_cast<const Float16*>(values) + first, count, out);
  }
}

void decode(const HqqDequantizeArguments& a, const Run& run, float* values) {
  take_fields(a, run, values);
  const int64_t first = a.groups_are_rows ? run.row : run.column;
  const int64_t count = a.groups_are_rows ? 1 : run.count;
  float zeros[kRun], scales[kRun];
  widen(a.zeros, a.scale_type, first, count, zeros);
  widen(a.scales, a.scale_type, first, count, scales);
  if (a.groups_are_rows)
    scale_row(values, zeros[0], scales[0], run.count);
  else
    scale_columns(values, zeros, scales, run.count);
}

void store_at(const float* values, int64_t count, ElementType type, void* out, int64_t first) {
  switch (type) {
    case ElementType::kFloat32:
      return store_as(values, count, static_cast<float*>(out) + first);
    case ElementType::kBFloat16:
      return store_as(values, count, static_cast<BFloat16*>(out) + first);
    case ElementType::kFloat16:
      return store_as(values, count, static_cast<Float16*>(out) + first);
  }
}

}  // namespace

void dequantize_hqq(const HqqDequantizeArguments& a) {
  parallel_for(a.end - a.begin, kGrain, [&](int64_t begin, int64_t end) {
    float values[kRun];
    while (begin < end) {
      const int64_t place = a.begin + begin;
      Run run{place / a.columns, place % a.columns, 0};
      run.count = std::min({kRun, a.columns - run.column, end - begin});
      decode(a, run, values);
      store_at(values, run.count, a.type, a.out, begin);
      begin += run.count;
    }
  });
}

}  // namespace qlora::quant::cpu
