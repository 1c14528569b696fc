#include <algorithm>
#include <vector>

#include "base/float8.h"
#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "quant/elements/with_element_type.h"
#include "quant/fp8/fp8_kernels.h"

#define QLORA_SIMD_LOOPS "quant/fp8/fp8_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a thread is worth waking for

float scale_at(const Fp8DequantizeArguments& a, int64_t i) {
  switch (a.scale_type) {
    case Fp8ScaleType::kFloat32:
      return static_cast<const float*>(a.scales)[i];
    case Fp8ScaleType::kBFloat16:
      return bfloat16_to_float(static_cast<const uint16_t*>(a.scales)[i]);
    case Fp8ScaleType::kFloat16:
      return float16_to_float(static_cast<const uint16_t*>(a.scales)[i]);
    default:
      return e8m0_to_float(static_cast<const uint8_t*>(a.scales)[i]);
  }
}

template <typename T>
using WidenRow = void (*)(const uint8_t*, const float*, int64_t, int64_t, T*);

template <typename T>
WidenRow<T> row_kernel() {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::widen_row<T>;
  if (has_avx2()) return simd::avx2::widen_row<T>;
#endif
  return simd::baseline::widen_row<T>;
}

template <typename T>
void dequantize_as(const Fp8DequantizeArguments& a, T* out) {
  const WidenRow<T> widen = row_kernel<T>();
  const int64_t columns = a.grid_columns();
  parallel_for(
      a.end - a.begin, std::max<int64_t>(1, kGrain / a.in), [&](int64_t first, int64_t last) {
        std::vector<float> scales(static_cast<size_t>(columns));
        for (int64_t i = first; i < last; ++i) {
          const int64_t row = a.begin + i;
          if (i == first || row % a.block_rows == 0)
            for (int64_t j = 0; j < columns; ++j)
              scales[static_cast<size_t>(j)] = scale_at(a, row / a.block_rows * columns + j);
          widen(a.codes + row * a.in, scales.data(), a.in, a.block_columns, out + i * a.in);
        }
      });
}

}  // namespace

void dequantize_fp8(const Fp8DequantizeArguments& a) {
  with_element_type(
      a.type, [&]<typename T>(std::type_identity<T>) { dequantize_as(a, static_cast<T*>(a.out)); });
}

}  // namespace qlora::quant::cpu
