#include "quant/grouped/grouped_product_kernels.h"

#include <algorithm>
#include <vector>

#include "base/instruction_set.h"
#include "base/vectorize.h"
#include "quant/few_rows/for_tokens.h"
#include "quant/grouped/grouped_decoders.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kMostGroupRows = 4;  // that a tile takes at once

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/grouped/grouped_product_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

QLORA_VECTORIZED void lay_out_by_nibble_in_order(const float* x, int64_t in, float* laid_out) {
  for (int64_t i = 0; i < in; i += kGroupUnit)
    for (int n = 0; n < 8; ++n)
      for (int j = 0; j < 4; ++j) laid_out[i + 4 * n + j] = x[i + 8 * j + n];
}

}  // namespace

bool has_grouped_product(const GroupedRows& w) {
  if (w.group_of != nullptr) return has_scattered_product(w);
  return (w.bits == 4 || w.bits == 8) && w.in % kGroupUnit == 0 && w.group_size % kGroupUnit == 0;
}

void lay_out_for_groups(const GroupedRows& w, const float* x, float* laid_out) {
  if (w.bits == 4 && w.group_of == nullptr)
    lay_out_by_nibble_in_order(x, w.in, laid_out);
  else
    std::copy_n(x, w.in, laid_out);
}

void multiply_grouped_rows(const GroupedRows& w, const float* x, int64_t tokens, int64_t begin,
                           int64_t end, float* sums, int64_t stride) {
  if (w.group_of != nullptr) return multiply_scattered(w, x, tokens, begin, end, sums, stride);
  std::vector<float> room(static_cast<size_t>(2 * kMostGroupRows * w.groups));
  float* const numbers = room.data();
  for_tokens(tokens, [&](int64_t t, auto count) {
    const float* of_x = x + t * w.in;
    float* to = sums + t * stride;
#ifdef __x86_64__
    if (has_avx512())
      return simd::avx512::multiply_grouped<count>(w, of_x, begin, end, numbers, to, stride);
    if (has_avx2())
      return simd::avx2::multiply_grouped<count>(w, of_x, begin, end, numbers, to, stride);
#endif
    simd::baseline::multiply_grouped<count>(w, of_x, begin, end, numbers, to, stride);
  });
}

}  // namespace qlora::quant::cpu
