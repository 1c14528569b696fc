// 4-bit quantization on the CPU. Plain loops that the compiler vectorises for each instruction set;
// all give the same bits.
#include <algorithm>
#include <cstring>

#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/elements/element_conversion.h"
#include "quant/nf4/nf4_kernels.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kMostBlockSize = 4096;
constexpr int64_t kGrain = 1 << 16;  // elements a thread is worth waking for
constexpr int kNumBounds = kNumFourBitCodes - 1;
constexpr float kLeastAbsmax = 1e-38f;  // keeps the reciprocal finite

// Codes in ascending order of their values, and the midpoints between neighbours, rounded as fp32
// sums.
struct Encoding {
  uint8_t codes[kNumFourBitCodes];
  float bounds[kNumBounds];
};

Encoding encoding_of(FourBitCode code) {
  Encoding encoding;
  float ascending[kNumFourBitCodes];
  for (uint8_t i = 0; i < kNumFourBitCodes; ++i) {
    encoding.codes[i] = code == FourBitCode::kNf4 ? i : kFp4Ascending[i];
    ascending[i] = code == FourBitCode::kNf4 ? kNf4Table[i] : kFp4Table[kFp4Ascending[i]];
  }
  for (int i = 0; i < kNumBounds; ++i)
    encoding.bounds[i] = (ascending[i] + ascending[i + 1]) / 2.0f;
  return encoding;
}

// How many bounds each value exceeds: a tie goes to the lower entry.
[[gnu::always_inline]] inline void count_bounds(const float* values, int64_t count,
                                                const float* all_bounds, uint8_t* ranks) {
  float bounds[kNumBounds];
  std::memcpy(bounds, all_bounds, sizeof(bounds));
  for (int64_t i = 0; i < count; ++i) {
    int32_t rank = 0;
#pragma GCC unroll 15
    for (int k = 0; k < kNumBounds; ++k) rank += values[i] > bounds[k] ? 1 : 0;
    ranks[i] = static_cast<uint8_t>(rank);
  }
}

template <typename T>
[[gnu::always_inline]] inline void quantize_blocks(const FourBitQuantizeArguments& a,
                                                   const Encoding& encoding, int64_t first,
                                                   int64_t last) {
  alignas(64) float values[kMostBlockSize];
  alignas(64) uint8_t ranks[kMostBlockSize];
  for (int64_t b = first; b < last; ++b) {
    const int64_t begin = b * a.block_size, count = std::min(a.block_size, a.count - begin);
    const T* weight = static_cast<const T*>(a.weight) + begin;
    const float absmax = absolute_maximum(weight, count);
    const float divisor = absmax < kLeastAbsmax ? kLeastAbsmax : absmax;
    if (count == a.block_size) {
      const float reciprocal = 1.0f / divisor;
      for (int64_t i = 0; i < count; ++i) values[i] = to_float(weight[i]) * reciprocal;
      a.absmax[b] = absmax;
    } else {  // a short last block is divided, and keeps the raised absmax
      for (int64_t i = 0; i < count; ++i) values[i] = to_float(weight[i]) / divisor;
      a.absmax[b] = divisor;
    }
    const int64_t bytes = (count + 1) / 2;
    if (count % 2 != 0) values[count] = 0.0f;
    count_bounds(values, bytes * 2, encoding.bounds, ranks);
    if (a.code == FourBitCode::kFp4)
      for (int64_t i = 0; i < bytes * 2; ++i) ranks[i] = encoding.codes[ranks[i]];
    uint8_t* packed = a.packed + begin / 2;
    for (int64_t j = 0; j < bytes; ++j)
      packed[j] = static_cast<uint8_t>(ranks[2 * j] << 4 | ranks[2 * j + 1]);
  }
}

QLORA_VECTORIZED void quantize_float32(const FourBitQuantizeArguments& a, const Encoding& encoding,
                                       int64_t first, int64_t last) {
  quantize_blocks<float>(a, encoding, first, last);
}
QLORA_VECTORIZED void quantize_bfloat16(const FourBitQuantizeArguments& a, const Encoding& encoding,
                                        int64_t first, int64_t last) {
  quantize_blocks<BFloat16>(a, encoding, first, last);
}
QLORA_VECTORIZED void quantize_float16(const FourBitQuantizeArguments& a, const Encoding& encoding,
                                       int64_t first, int64_t last) {
  quantize_blocks<Float16>(a, encoding, first, last);
}

}  // namespace

void quantize_four_bit(const FourBitQuantizeArguments& a) {
  const Encoding encoding = encoding_of(a.code);
  const int64_t blocks = (a.count + a.block_size - 1) / a.block_size;
  parallel_for(blocks, std::max<int64_t>(1, kGrain / a.block_size),
               [&](int64_t first, int64_t last) {
                 switch (a.type) {
                   case ElementType::kFloat32:
                     return quantize_float32(a, encoding, first, last);
                   case ElementType::kBFloat16:
                     return quantize_bfloat16(a, encoding, first, last);
                   case ElementType::kFloat16:
                     return quantize_float16(a, encoding, first, last);
                 }
               });
}

}  // namespace qlora::quant::cpu
