#include <algorithm>
#include <vector>

#include "base/instruction_set.h"
#include "base/vectorize.h"
#include "quant/nf4/nf4_block_decoders.h"
#include "quant/nf4/nf4_product_kernels.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kScalesAhead = 512;
constexpr int64_t kRowsAhead = 4;  // at least

// Scales that share one nested scale. Not vectorised: gathering the map's entries takes twice as
// long.
void decode_shared(const uint8_t* codes, const float* map, float nested, float offset,
                   int64_t count, float* out) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; ++i) out[i] = map[codes[i]] * nested + offset;
}

// Asks for what the next call will read: a few bytes between long stretches of codes, of which the
// processor does not see a stream by itself.
void ask_for_next(const FourBitScales& s, int64_t first, int64_t last) {
  const auto* next = s.absmax != nullptr ? reinterpret_cast<const char*>(s.absmax + last)
                                         : reinterpret_cast<const char*>(s.codes + last);
  const int64_t bytes = (last - first) * (s.absmax != nullptr ? 4 : 1);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(next + i);
}

void decode_scales(const FourBitScales& s, int64_t first, int64_t last, float* out) {
  ask_for_next(s, first, last);
  if (s.absmax != nullptr) {
    std::copy(s.absmax + first, s.absmax + last, out);
    return;
  }
  while (first < last) {
    const int64_t nested = first >> s.nested_shift;
    const int64_t end = std::min(last, (nested + 1) << s.nested_shift);
    decode_shared(s.codes + first, s.map, s.nested_absmax[nested], *s.offset, end - first, out);
    out += end - first;
    first = end;
  }
}

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/nf4/nf4_product_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

bool always() { return true; }

constexpr FourBitProduct kProducts[] = {
#ifdef __x86_64__
    {"avx512-bfloat16", has_avx512_bfloat16, ElementType::kBFloat16, true, lay_out_avx512_bfloat16,
     multiply_avx512_bfloat16},
    {"avx512", has_avx512, ElementType::kFloat32, false, lay_out_by_nibble,
     simd::avx512::multiply_codes},
    {"avx2-bytes", has_avx2, ElementType::kFloat32, true, lay_out_avx2, multiply_avx2},
    {"avx2", has_avx2, ElementType::kFloat32, false, lay_out_by_nibble, simd::avx2::multiply_codes},
#endif
    {"baseline", always, ElementType::kFloat32, false, lay_out_by_nibble,
     simd::baseline::multiply_codes},
};

}  // namespace

ScaleRows::ScaleRows(const FourBitRows& rows) : rows_(rows), blocks_(rows.in / rows.block_size) {
  thread_local std::vector<float> buffer;
  const int64_t rows_ahead = std::max(kRowsAhead, kScalesAhead / blocks_);
  if (static_cast<int64_t>(buffer.size()) < rows_ahead * blocks_)
    buffer.resize(static_cast<size_t>(rows_ahead * blocks_));
  scales_ = buffer.data();
}

void ScaleRows::decode_from(int64_t row, int64_t end) {
  first_ = row;
  last_ = std::min(end, row + std::max(kRowsAhead, kScalesAhead / blocks_));
  decode_scales(rows_.scales, rows_.first_block + first_ * blocks_,
                rows_.first_block + last_ * blocks_, scales_);
}

QLORA_VECTORIZED void lay_out_by_nibble(const void* x, int64_t in, void* laid_out) {
  const auto* from = static_cast<const float*>(x);
  auto* to = static_cast<float*>(laid_out);
  for (int64_t i = 0; i < in; i += 32)
    for (int n = 0; n < 8; ++n)
      for (int j = 0; j < 4; ++j) to[i + 4 * n + j] = from[i + 8 * j + (n ^ 1)];
}

std::span<const FourBitProduct> four_bit_products() { return kProducts; }

const FourBitProduct& four_bit_product(ElementType x, ElementType rounding) {
  return *std::ranges::find_if(kProducts, [=](const FourBitProduct& product) {
    return product.supported() && (product.type == x || product.type == ElementType::kFloat32) &&
           (!product.only_bfloat16 || rounding == ElementType::kBFloat16);
  });
}

}  // namespace qlora::quant::cpu
