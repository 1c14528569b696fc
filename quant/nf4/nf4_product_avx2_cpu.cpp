// 4-bit product for AVX2 of weights that are rounded to bf16: a block's 16 values stand in two
// registers, their low and their high bytes, where vpshufb looks 32 codes up at once. A pair of
// bytes in the upper half of a lane is the weight in fp32.
#ifdef __x86_64__
#include <immintrin.h>

#include "quant/nf4/nf4_block_decoders.h"
#include "quant/nf4/nf4_product_kernels.h"

#pragma GCC target("avx2,fma,f16c")
#include "base/simd/avx2.h"

namespace qlora::quant::cpu {
namespace {

using simd::avx2::kLanes;
using simd::avx2::Vector;

constexpr int64_t kUnit = 32;  // elements of 16 bytes
// How far ahead codes are asked for: rows that lie one after the other are read side by side, which
// the processor does not take for one stream by itself.
constexpr int64_t kAhead = 4096;

// Rows of a weight that are taken side by side, as the registers hold their values and sums.
template <int kTokens>
constexpr int kRows = kTokens <= 2 ? 2 : 1;
// Sums of one element of the product: an addition need not wait for the one before. Not by the
// number of rows, on which no bit may depend.
constexpr int kSums = 2;

// The low and the high bytes of 16 values, in each half.
struct Values {
  __m256i low, high;
};

[[gnu::always_inline]] inline Values values_of(const float* table, float scale) {
  const Vector scales = simd::avx2::all(scale);
  const Vector lower = simd::avx2::multiply(simd::avx2::load(table), scales);
  const Vector upper = simd::avx2::multiply(simd::avx2::load(table + kLanes), scales);
  // Lane l: value l, then value 8 + l.
  const __m256i pairs = _mm256_castps_si256(
      simd::avx2::ordinary_pairs(lower, upper, static_cast<const uint16_t*>(nullptr)));
  // Of each half: the low bytes of four values and of those 8 further on, then their high bytes.
  const __m256i order = _mm256_broadcastsi128_si256(_mm_set_epi8(15, 11, 7, 3, 13, 9, 5, 1, 14, 10,
                                                                 6, 2, 12, 8, 4,  //
                                                                 0));
  const __m256i bytes = _mm256_shuffle_epi8(pairs, order);
  return {_mm256_permutevar8x32_epi32(bytes, _mm256_set_epi32(5, 1, 4, 0, 5, 1, 4, 0)),
          _mm256_permutevar8x32_epi32(bytes, _mm256_set_epi32(7, 3, 6, 2, 7, 3, 6, 2))};
}

// The weights of 16 bytes, in the order of kOrder.
[[gnu::always_inline]] inline void weights_of(const uint8_t* packed, const Values& values,
                                              Vector (&weights)[4]) {
  const __m256i twice =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m256i codes = _mm256_and_si256(
      _mm256_srlv_epi32(twice, _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0)), _mm256_set1_epi8(15));
  const __m256i low = _mm256_shuffle_epi8(values.low, codes),
                high = _mm256_shuffle_epi8(values.high, codes);
  const __m256i first = _mm256_unpacklo_epi8(low, high), second = _mm256_unpackhi_epi8(low, high);
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  weights[0] = _mm256_castsi256_ps(_mm256_slli_epi32(first, 16));
  weights[1] = _mm256_castsi256_ps(_mm256_and_si256(first, upper));
  weights[2] = _mm256_castsi256_ps(_mm256_slli_epi32(second, 16));
  weights[3] = _mm256_castsi256_ps(_mm256_and_si256(second, upper));
}

// The element that stands in each place of those vectors: odd ones, the low halves of the bytes, in
// the lower lanes.
struct Order {
  int elements[kUnit];
};
constexpr Order kOrder = [] {
  Order order{};
  for (int place = 0; place < kUnit; ++place) {
    const int vector = place / kLanes, lane = place % kLanes;
    const int byte = vector / 2 * 8 + lane % 4 * 2 + vector % 2;
    order.elements[place] = 2 * byte + (lane < 4 ? 1 : 0);
  }
  return order;
}();

template <int kTokens, int kCount>
[[gnu::always_inline]] inline void multiply_tile(const FourBitRows& w, const uint8_t* packed,
                                                 const float* scales, const float* x, float* sums,
                                                 int64_t stride) {
  const int64_t row_bytes = w.in / 2, blocks = w.in / w.block_size;
  const float* table = code_table(w.code);
  Vector acc[kTokens][kCount][kSums];
  for (auto& rows : acc)
    for (auto& row : rows)
      for (Vector& sum : row) sum = simd::avx2::zero();
  for (int64_t block = 0; block < blocks; ++block) {
    Values values[kCount];
    for (int r = 0; r < kCount; ++r) values[r] = values_of(table, scales[r * blocks + block]);
    for (int64_t i = 0; i < w.block_size; i += kUnit, packed += kUnit / 2, x += kUnit)
      for (int r = 0; r < kCount; ++r) {
        __builtin_prefetch(packed + r * row_bytes + kAhead);
        Vector weights[4];
        weights_of(packed + r * row_bytes, values[r], weights);
        for (int v = 0; v < 4; ++v)
          for (int t = 0; t < kTokens; ++t) {
            Vector& sum = acc[t][r][v % kSums];
            sum = simd::avx2::multiply_add(weights[v], simd::avx2::load(x + t * w.in + v * kLanes),
                                           sum);
          }
      }
  }
  for (int t = 0; t < kTokens; ++t)
    for (int r = 0; r < kCount; ++r)
      sums[t * stride + r] = simd::avx2::sum_of(simd::avx2::add(acc[t][r][0], acc[t][r][1]));
}

template <int kTokens>
void multiply_tokens(const FourBitRows& w, const float* x, int64_t begin, int64_t end, float* sums,
                     int64_t stride) {
  constexpr int kCount = kRows<kTokens>;
  ScaleRows scales(w);
  int64_t row = begin;
  for (; row + kCount <= end; row += kCount)
    multiply_tile<kTokens, kCount>(w, w.packed + row * (w.in / 2), scales.of(row, kCount, end), x,
                                   sums + row - begin, stride);
  for (; row < end; ++row)
    multiply_tile<kTokens, 1>(w, w.packed + row * (w.in / 2), scales.of(row, 1, end), x,
                              sums + row - begin, stride);
}

}  // namespace

void lay_out_avx2(const void* x, int64_t in, void* laid_out) {
  const auto* from = static_cast<const float*>(x);
  auto* to = static_cast<float*>(laid_out);
  for (int64_t i = 0; i < in; i += kUnit)
    for (int place = 0; place < kUnit; ++place) to[i + place] = from[i + kOrder.elements[place]];
}

void multiply_avx2(const FourBitRows& w, const void* x, int64_t tokens, int64_t begin, int64_t end,
                   float* sums, int64_t stride) {
  const auto* from = static_cast<const float*>(x);
  for_tokens(tokens, [&](int64_t t, auto count) {
    multiply_tokens<count>(w, from + t * w.in, begin, end, sums + t * stride, stride);
  });
}

}  // namespace qlora::quant::cpu
#endif
