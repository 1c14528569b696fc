#include "lora/low_rank_kernels.h"

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>
#include <vector>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "base/bfloat16_vectors_avx512.h"

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

// `rows` rows of out from t on = (kAdd ? out : 0) + scale * a * packed: one tile.
template <bool kAdd, int kRows, int kVectors>
void multiply_block(ConstRows a, int64_t t, int64_t end, const Packed& b, int64_t column,
                    __m512 scales, Rows out) {
  const int64_t rows = std::min<int64_t>(kRows, end - t);
  __m512 acc[kRows][kVectors];
  clear_tile(acc);
  multiply_tile(a.data + t * a.stride, a.stride, 2, rows, b.data + column, b.stride, b.pairs, acc);
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

// All rows, kRows at a time, through all columns: what lies together in memory is met together.
template <bool kAdd, int kRows, int kTailVectors>
void multiply_rows(ConstRows a, int64_t begin, int64_t end, const Packed& b, float scale,
                   Rows out) {
  const __m512 scales = _mm512_set1_ps(scale);
  for (int64_t t = begin; t < end; t += kRows) {
    int64_t column = 0;
    if constexpr (kRows <= 6)
      for (; column + 4 * kWords <= b.stride; column += 4 * kWords)
        multiply_block<kAdd, kRows, 4>(a, t, end, b, column, scales, out);
    if constexpr (kTailVectors > 0)
      multiply_block<kAdd, kRows, kTailVectors>(a, t, end, b, column, scales, out);
  }
}

template <bool kAdd>
void multiply(ConstRows a, int64_t tokens, const Packed& b, float scale, Rows out) {
  const bool wide = b.stride >= 4 * kWords;
  parallel_for(tokens, kRowGrain, [&](int64_t begin, int64_t end) {
    switch (b.stride % (4 * kWords) / kWords) {
      case 0:
        return multiply_rows<kAdd, 6, 0>(a, begin, end, b, scale, out);
      case 1:
        return wide ? multiply_rows<kAdd, 6, 1>(a, begin, end, b, scale, out)
                    : multiply_rows<kAdd, 14, 1>(a, begin, end, b, scale, out);
      case 2:
        return wide ? multiply_rows<kAdd, 6, 2>(a, begin, end, b, scale, out)
                    : multiply_rows<kAdd, 8, 2>(a, begin, end, b, scale, out);
      default:
        return wide ? multiply_rows<kAdd, 6, 3>(a, begin, end, b, scale, out)
                    : multiply_rows<kAdd, 8, 3>(a, begin, end, b, scale, out);
    }
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

// Adds a tile whose two registers a row hold the columns by fours, as unpacklo and unpackhi dealt
// them out.
void add_to_gradient(const __m512 (&acc)[kGradientRows][2], int64_t rows, int64_t count,
                     float scale, GradientRows gradient) {
  const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  const __m512 scales = _mm512_set1_ps(scale);
  alignas(64) float tile[kGradientRows][32];
  for (int i = 0; i < kGradientRows; ++i)
    for (int j = 0; j < 2; ++j) {
      const __m512 ordered = _mm512_permutex2var_ps(acc[i][0], j == 0 ? first : second, acc[i][1]);
      _mm512_store_ps(tile[i] + j * kWords, _mm512_mul_ps(ordered, scales));
    }
  if (gradient.column_stride == 1) {
    for (int64_t i = 0; i < rows; ++i)
      for (int j = 0; j < 2; ++j) {
        float* to = gradient.data + i * gradient.row_stride + j * kWords;
        const __mmask16 mask = first_lanes(std::max<int64_t>(0, count - j * kWords));
        _mm512_mask_storeu_ps(
            to, mask,
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), _mm512_load_ps(tile[i] + j * kWords)));
      }
    return;
  }
  if (gradient.row_stride == 1 && rows == kGradientRows) {
    const __m256i rows_of_tile = _mm256_set_epi32(224, 192, 160, 128, 96, 64, 32, 0);
    for (int64_t c = 0; c < std::min<int64_t>(32, count); ++c) {
      float* to = gradient.data + c * gradient.column_stride;
      _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to),
                                         _mm256_i32gather_ps(tile[0] + c, rows_of_tile, 4)));
    }
    return;
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < std::min<int64_t>(32, count); ++c)
      gradient.data[i * gradient.row_stride + c * gradient.column_stride] += tile[i][c];
}

// Tokens whose share of a strip of x, 32 columns wide, fits the first-level cache.
constexpr int64_t kStripTokens = 512;

// Two neighbouring tokens to a word, 32 columns by fours; a missing last token counts as zero. Read
// once and laid out together: rows of x lie so that their strip would crowd a few cache sets.
void weave_strip(ConstRows x, int64_t begin, int64_t end, int64_t column, int64_t in,
                 uint32_t* woven) {
  const __mmask32 mask = first_of_32(in - column);
  for (int64_t t = begin; t < end; t += 2, woven += 2 * kWords) {
    const uint16_t* from = x.data + t * x.stride + column;
    _mm_prefetch(reinterpret_cast<const char*>(from + 16 * x.stride), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(from + 17 * x.stride), _MM_HINT_T0);
    const __m512i first = _mm512_maskz_loadu_epi16(mask, from);
    const __m512i second =
        t + 1 < end ? _mm512_maskz_loadu_epi16(mask, from + x.stride) : _mm512_setzero_si512();
    _mm512_store_si512(woven, _mm512_unpacklo_epi16(first, second));
    _mm512_store_si512(woven + kWords, _mm512_unpackhi_epi16(first, second));
  }
}

// What tokens [begin, end) add to 32 columns of the gradient. h is packed by rows.
void gradient_strip(const Packed& h, ConstRows x, int64_t begin, int64_t end, int64_t column,
                    int64_t in, float scale, GradientRows gradient) {
  alignas(64) uint32_t woven[kStripTokens * kWords];
  weave_strip(x, begin, end, column, in, woven);
  const auto* pairs_of_h = reinterpret_cast<const uint16_t*>(h.data + begin / 2 * h.stride);
  for (int64_t row = 0; row < h.columns; row += kGradientRows) {
    const int64_t rows = std::min<int64_t>(kGradientRows, h.columns - row);
    __m512 acc[kGradientRows][2];
    clear_tile(acc);
    multiply_tile(pairs_of_h + 2 * row, 2, 2 * h.stride, rows, woven, 2 * kWords,
                  (end - begin + 1) / 2, acc);
    add_to_gradient(acc, rows, in - column, scale,
                    {gradient.data + row * gradient.row_stride + column * gradient.column_stride,
                     gradient.row_stride, gradient.column_stride});
  }
}

}  // namespace

void low_rank_down(ConstRows x, ConstRows a, int64_t tokens, int64_t in, int64_t rank, float scale,
                   Rows h) {
  multiply<false>(x, tokens, packed(a, in, rank, true), scale, h);
}

void low_rank_down_transposed(ConstRows x, ConstRows b, int64_t tokens, int64_t in, int64_t rank,
                              float scale, Rows h) {
  multiply<false>(x, tokens, packed(b, in, rank, false), scale, h);
}

void low_rank_up(ConstRows h, ConstRows b, int64_t tokens, int64_t rank, int64_t out, float scale,
                 bool accumulate, Rows y) {
  const Packed factor = packed(b, rank, out, true);
  accumulate ? multiply<true>(h, tokens, factor, scale, y)
             : multiply<false>(h, tokens, factor, scale, y);
}

void low_rank_up_transposed(ConstRows h, ConstRows a, int64_t tokens, int64_t rank, int64_t out,
                            float scale, bool accumulate, Rows y) {
  const Packed factor = packed(a, rank, out, false);
  accumulate ? multiply<true>(h, tokens, factor, scale, y)
             : multiply<false>(h, tokens, factor, scale, y);
}

void low_rank_gradient(ConstRows h, ConstRows x, int64_t tokens, int64_t rank, int64_t in,
                       float scale, GradientRows gradient) {
  const int64_t pairs = (tokens + 1) / 2, stride = padded(rank);
  uint32_t* words = pack_buffer(pairs * stride);
  pack_rows(h.data, h.stride, tokens, rank, words, stride);
  const Packed packed_h{words, stride, pairs, rank};
  const int64_t strips = (in + 31) / 32;
  parallel_for(strips, 1, [&](int64_t begin, int64_t end) {
    for (int64_t strip = begin; strip < end; ++strip)
      for (int64_t t = 0; t < tokens; t += kStripTokens)
        gradient_strip(packed_h, x, t, std::min(t + kStripTokens, tokens), strip * 32, in, scale,
                       gradient);
  });
}

}  // namespace qlora::lora::cpu
