#include <algorithm>

#include "base/lanes.h"
#include "quant/few_rows/dense_product_kernels.h"

namespace qlora::quant::cpu {
namespace {

constexpr int kRows = 4;  // summed side by side: an addition need not wait for the one before
constexpr int64_t kPair = 2 * kLanes;

// Rows that lie one after the other are read side by side, which the processor does not take for
// one stream by itself: what lies this many bytes on is asked for.
constexpr int64_t kAhead = 8192;

template <typename T>
[[gnu::always_inline]] inline void ask_ahead(const T* rows, int64_t i) {
  const char* from = reinterpret_cast<const char*>(rows + kRows * i) + kAhead;
  for (size_t line = 0; line < kRows * kPair * sizeof(T); line += 64)
    __builtin_prefetch(from + line);
}

// x in the order in which load_pair takes the weights.
template <typename T>
[[gnu::always_inline]] inline void dots(const T* const (&w)[kRows], const float* x, int64_t in,
                                        float (&sums)[kRows]) {
  Lanes lanes[kRows][2] = {};
  int64_t i = 0;
  for (; i + kPair <= in; i += kPair) {
    Lanes x_first, x_second;
    load_pair(x + i, x_first, x_second);
    ask_ahead(w[0], i);
    for (int r = 0; r < kRows; ++r) {
      Lanes first, second;
      load_pair(w[r] + i, first, second);
      lanes[r][0] += first * x_first;
      lanes[r][1] += second * x_second;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    sums[r] = sum_lanes(lanes[r][0] + lanes[r][1]);
    for (int64_t k = i; k < in; ++k) sums[r] += load(w[r][k]) * x[k];
  }
}

template <typename T>
[[gnu::always_inline]] inline void all_rows(const T* w, int64_t rows, int64_t in, const float* x,
                                            int64_t tokens, float* sums, int64_t stride) {
  for (int64_t row = 0; row < rows; row += kRows) {
    const int64_t count = std::min<int64_t>(kRows, rows - row);
    const T* of_row[kRows];  // past the last row it is read again
    for (int64_t r = 0; r < kRows; ++r) of_row[r] = w + (row + std::min(r, count - 1)) * in;
    for (int64_t t = 0; t < tokens; ++t) {
      float tile[kRows];
      dots(of_row, x + t * in, in, tile);
      std::copy_n(tile, count, sums + t * stride + row);
    }
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_DENSE_ROWS(T)                                                            \
  QLORA_VECTORIZED void multiply(const T* w, int64_t rows, int64_t in, const float* x, \
                                 int64_t tokens, float* sums, int64_t stride) {        \
    all_rows(w, rows, in, x, tokens, sums, stride);                                    \
  }

QLORA_DENSE_ROWS(float)
QLORA_DENSE_ROWS(uint16_t)
QLORA_DENSE_ROWS(Float16)
#undef QLORA_DENSE_ROWS

}  // namespace

#ifndef __x86_64__
void multiply_rows(const uint16_t*, int64_t, int64_t, const uint16_t*, int64_t, float*, int64_t) {}
#endif

QLORA_VECTORIZED void lay_out_pairs(const float* x, int64_t in, float* laid_out) {
  int64_t i = 0;
  for (; i + kPair <= in; i += kPair)
    for (int j = 0; j < kLanes; ++j) {
      laid_out[i + j] = x[i + 2 * j];
      laid_out[i + kLanes + j] = x[i + 2 * j + 1];
    }
  for (; i < in; ++i) laid_out[i] = x[i];
}

void multiply_rows(const float* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride) {
  multiply(w, rows, in, x, tokens, sums, stride);
}

void multiply_rows(const uint16_t* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride) {
  multiply(w, rows, in, x, tokens, sums, stride);
}

void multiply_rows(const Float16* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride) {
  multiply(w, rows, in, x, tokens, sums, stride);
}

}  // namespace qlora::quant::cpu
