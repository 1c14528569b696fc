#include "quant/gguf/gguf_product_kernels.h"

#include "base/error.h"
#include "base/instruction_set.h"
#include "quant/few_rows/for_tokens.h"
#include "quant/gguf/gguf_arithmetic.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kBlock = 32;  // elements

// Where a block's parts lie, and what is taken off its integers; of E2M1 they are codes of numbers.
struct Nibbles4_0 {
  static constexpr int64_t kBytes = 18, kCodes = 2;
  static constexpr bool kSigned = false, kMinimum = false, kE2m1 = false;
  static constexpr float kOffset = 8;
};
struct Nibbles4_1 {
  static constexpr int64_t kBytes = 20, kCodes = 4;
  static constexpr bool kSigned = false, kMinimum = true, kE2m1 = false;
  static constexpr float kOffset = 0;
};
struct Bytes8_0 {
  static constexpr int64_t kBytes = 34, kCodes = 2;
  static constexpr bool kSigned = true, kMinimum = false, kE2m1 = false;
  static constexpr float kOffset = 0;
};
struct NibblesOfE2m1 {
  static constexpr int64_t kBytes = 17, kCodes = 1;
  static constexpr bool kSigned = false, kMinimum = false, kE2m1 = true;
};

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/gguf/gguf_product_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

template <typename Format>
void multiply(const GgufRows& w, int64_t rows, const float* x, const float* x_sums, int64_t tokens,
              float* sums, int64_t stride) {
  for_tokens(tokens, [&](int64_t t, auto count) {
    const float *of_x = x + t * w.in, *of_sums = x_sums + t * (w.in / kBlock);
    float* to = sums + t * stride;
#ifdef __x86_64__
    if (has_avx512())
      return simd::avx512::multiply_blocks<Format, count>(w.blocks, w.in, rows, of_x, of_sums, to,
                                                          stride);
    if (has_avx2())
      return simd::avx2::multiply_blocks<Format, count>(w.blocks, w.in, rows, of_x, of_sums, to,
                                                        stride);
#endif
    simd::baseline::multiply_blocks<Format, count>(w.blocks, w.in, rows, of_x, of_sums, to, stride);
  });
}

}  // namespace

bool has_gguf_rows(io::DType type) {
  return type == io::DType::kQ4_0 || type == io::DType::kQ4_1 || type == io::DType::kQ8_0 ||
         type == io::DType::kMXFP4;
}

void sum_gguf_blocks(const float* x, int64_t in, float* sums) {
  for (int64_t b = 0; b < in / kBlock; ++b) {
    float sum = 0;
    for (int64_t i = 0; i < kBlock; ++i) sum += x[b * kBlock + i];
    sums[b] = sum;
  }
}

void multiply_gguf_rows(const GgufRows& w, int64_t rows, const float* x, const float* x_sums,
                        int64_t tokens, float* sums, int64_t stride) {
  switch (w.type) {
    case io::DType::kQ4_0:
      return multiply<Nibbles4_0>(w, rows, x, x_sums, tokens, sums, stride);
    case io::DType::kQ4_1:
      return multiply<Nibbles4_1>(w, rows, x, x_sums, tokens, sums, stride);
    case io::DType::kQ8_0:
      return multiply<Bytes8_0>(w, rows, x, x_sums, tokens, sums, stride);
    case io::DType::kMXFP4:
      return multiply<NibblesOfE2m1>(w, rows, x, x_sums, tokens, sums, stride);
    default:
      fail<Error>("multiply_gguf_rows: {} has no kernel", io::dtype_name(w.type));
  }
}

}  // namespace qlora::quant::cpu
