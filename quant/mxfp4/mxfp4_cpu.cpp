#include <algorithm>

#include "base/float8.h"
#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "quant/elements/with_element_type.h"
#include "quant/mxfp4/mxfp4_kernels.h"

#define QLORA_SIMD_LOOPS "quant/mxfp4/mxfp4_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kGrain = 1024;   // blocks a thread is worth waking for
constexpr int64_t kTogether = 64;  // blocks whose scales are widened at once

template <typename T>
using DecodeBlocks = void (*)(const uint8_t*, const float*, int64_t, const float*, T*);

template <typename T>
DecodeBlocks<T> block_kernel() {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::decode_mxfp4_blocks<T>;
  if (has_avx2()) return simd::avx2::decode_mxfp4_blocks<T>;
#endif
  return simd::baseline::decode_mxfp4_blocks<T>;
}

template <typename T>
void dequantize_as(const Mxfp4DequantizeArguments& a, T* out) {
  const DecodeBlocks<T> decode = block_kernel<T>();
  parallel_for(a.blocks, kGrain, [&](int64_t begin, int64_t end) {
    float scales[kTogether];
    for (int64_t first = begin; first < end; first += kTogether) {
      const int64_t count = std::min(kTogether, end - first);
      for (int64_t i = 0; i < count; ++i) scales[i] = e8m0_to_float(a.scales[first + i]);
      decode(a.packed + first * kMxfp4Block / 2, scales, count, kE2m1Table,
             out + first * kMxfp4Block);
    }
  });
}

}  // namespace

void dequantize_mxfp4(const Mxfp4DequantizeArguments& a) {
  with_element_type(
      a.type, [&]<typename T>(std::type_identity<T>) { dequantize_as(a, static_cast<T*>(a.out)); });
}

}  // namespace qlora::quant::cpu
