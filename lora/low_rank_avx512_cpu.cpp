#include "lora/low_rank_kernels.h"

#ifdef __x86_64__
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>
#include <vector>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"

namespace qlora::lora::cpu {
namespace {
using namespace avx512;

constexpr int64_t kRowGrain = 32;  // tokens a thread is worth waking for

// Packed factors live until the next product of the same thread.
uint32_t* pack_buffer(int64_t words) {
  thread_local std::vector<uint32_t> buffer;
  if (static_cast<int64_t>(buffer.size()) < words) buffer.resize(static_cast<size_t>(words));
  return buffer.data();
}

struct Packed {
  const uint32_t* data;
  int64_t stride, pairs, columns;
};

// Rows [begin, end) of out = (kAdd ? out : 0) + scale * a * packed, tile by tile.
template <bool kAdd, int kRows, int kVectors>
void multiply_columns(ConstRows a, int64_t begin, int64_t end, const Packed& b, int64_t column,
                      float scale, Rows out) {
  const __m512 scales = _mm512_set1_ps(scale);
  for (int64_t t = begin; t < end; t += kRows) {
    const int64_t rows = std::min<int64_t>(kRows, end - t);
    __m512 acc[kRows][kVectors];
    clear_tile(acc);
    multiply_tile(a.data + t * a.stride, a.stride, 2, rows, b.data + column, b.stride, b.pairs,
                  acc);
    for (int i = 0; i < kRows; ++i) {
      if (i >= rows) break;
      for (int j = 0; j < kVectors; ++j) {
        const int64_t n = column + j * kWords;
        const __mmask16 mask = first_lanes(b.columns - n);
        uint16_t* to = out.data + (t + i) * out.stride + n;
        __m512 value = _mm512_mul_ps(acc[i][j], scales);
        if constexpr (kAdd) value = _mm512_add_ps(value, load_bfloat16(to, mask));
        store_bfloat16(value, to, mask);
      }
    }
  }
}

template <bool kAdd>
void multiply(ConstRows a, int64_t tokens, const Packed& b, float scale, Rows out) {
  parallel_for(tokens, kRowGrain, [&](int64_t begin, int64_t end) {
    int64_t column = 0;
    for (; column + 4 * kWords <= b.stride; column += 4 * kWords)
      multiply_columns<kAdd, 6, 4>(a, begin, end, b, column, scale, out);
    if (b.stride - column == 3 * kWords)
      multiply_columns<kAdd, 8, 3>(a, begin, end, b, column, scale, out);
    else if (b.stride - column == 2 * kWords)
      multiply_columns<kAdd, 8, 2>(a, begin, end, b, column, scale, out);
    else if (b.stride - column == kWords)
      multiply_columns<kAdd, 14, 1>(a, begin, end, b, column, scale, out);
  });
}

Packed packed(ConstRows b, int64_t depth, int64_t columns, bool transposed) {
  const int64_t stride = padded(columns);
  uint32_t* words = pack_buffer(depth / 2 * stride);
  if (transposed)
    pack_transposed(b.data, b.stride, depth, columns, words, stride);
  else
    pack_rows(b.data, b.stride, depth, columns, words, stride);
  return {words, stride, depth / 2, columns};
}

// kRows rows of the gradient, 32 columns: h's words hold two tokens each, x's rows are woven
// together as they are read.
constexpr int kGradientRows = 8;

void gradient_tile(const uint32_t* words, int64_t rank, int64_t row, ConstRows x, int64_t tokens,
                   int64_t column, int64_t in, float scale, GradientRows gradient) {
  const int64_t rows = std::min<int64_t>(kGradientRows, rank - row);
  const int64_t count = in - column;
  const __mmask32 mask = count >= 32 ? 0xffffffffu : static_cast<__mmask32>((1u << count) - 1u);
  __m512 acc[kGradientRows][2];
  clear_tile(acc);
  int64_t at[kGradientRows];
  for (int i = 0; i < kGradientRows; ++i) at[i] = row + std::min<int64_t>(i, rows - 1);
  for (int64_t t = 0; t < tokens; t += 2) {
    const uint16_t* from = x.data + t * x.stride + column;
    const __m512i first = _mm512_maskz_loadu_epi16(mask, from);
    const __m512i second =
        t + 1 < tokens ? _mm512_maskz_loadu_epi16(mask, from + x.stride) : _mm512_setzero_si512();
    const __m512bh low = (__m512bh)_mm512_unpacklo_epi16(first, second);
    const __m512bh high = (__m512bh)_mm512_unpackhi_epi16(first, second);
    const uint32_t* pairs = words + t / 2 * rank;
    for (int i = 0; i < kGradientRows; ++i) {
      const __m512bh pair = (__m512bh)_mm512_set1_epi32(static_cast<int>(pairs[at[i]]));
      acc[i][0] = _mm512_dpbf16_ps(acc[i][0], pair, low);
      acc[i][1] = _mm512_dpbf16_ps(acc[i][1], pair, high);
    }
  }
  // unpacklo and unpackhi deal the columns out by fours.
  for (int64_t i = 0; i < rows; ++i) {
    alignas(64) float lanes[2][kWords];
    for (int j = 0; j < 2; ++j) _mm512_store_ps(lanes[j], acc[i][j]);
    float* to = gradient.data + (row + i) * gradient.row_stride;
    for (int64_t c = 0; c < std::min<int64_t>(32, count); ++c)
      to[(column + c) * gradient.column_stride] += scale * lanes[c / 4 % 2][c / 8 * 4 + c % 4];
  }
}

}  // namespace

bool supports_low_rank_avx512() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

void low_rank_down(ConstRows x, ConstRows a, int64_t tokens, int64_t in, int64_t rank, float scale,
                   Rows h) {
  multiply<false>(x, tokens, packed(a, in, rank, true), scale, h);
}

void low_rank_down_transposed(ConstRows x, ConstRows b, int64_t tokens, int64_t in, int64_t rank,
                              float scale, Rows h) {
  multiply<false>(x, tokens, packed(b, in, rank, false), scale, h);
}

void low_rank_up(ConstRows h, ConstRows b, int64_t tokens, int64_t rank, int64_t out, float scale,
                 Rows y) {
  multiply<true>(h, tokens, packed(b, rank, out, true), scale, y);
}

void low_rank_up_transposed(ConstRows h, ConstRows a, int64_t tokens, int64_t rank, int64_t out,
                            float scale, Rows y) {
  multiply<true>(h, tokens, packed(a, rank, out, false), scale, y);
}

void low_rank_gradient(ConstRows h, ConstRows x, int64_t tokens, int64_t rank, int64_t in,
                       float scale, GradientRows gradient) {
  const int64_t pairs = (tokens + 1) / 2;
  uint32_t* words = pack_buffer(pairs * rank);
  for (int64_t p = 0; p < pairs; ++p)
    for (int64_t r = 0; r < rank; ++r) {
      const uint32_t low = h.data[2 * p * h.stride + r];
      const uint32_t high = 2 * p + 1 < tokens ? h.data[(2 * p + 1) * h.stride + r] : 0u;
      words[p * rank + r] = low | high << 16;
    }
  const int64_t blocks = (in + 31) / 32;
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      for (int64_t row = 0; row < rank; row += kGradientRows)
        gradient_tile(words, rank, row, x, tokens, block * 32, in, scale, gradient);
  });
}

}  // namespace qlora::lora::cpu
#else
namespace qlora::lora::cpu {
bool supports_low_rank_avx512() { return false; }
}  // namespace qlora::lora::cpu
#endif
