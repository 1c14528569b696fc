#include <algorithm>
#include <cstring>

#include "base/element.h"
#include "base/vectorize.h"
#include "quant/dense_product_kernels.h"

namespace qlora::quant::cpu {
namespace {

constexpr int kRows = 4;  // summed side by side: an addition need not wait for the one before

// A register of kLanes floats, or what of one the instruction set has.
using Floats [[gnu::vector_size(kLanes * 4)]] = float;
using Words [[gnu::vector_size(kLanes * 4)]] = uint32_t;
using Halves [[gnu::vector_size(kLanes * 2)]] = uint16_t;

[[gnu::always_inline]] inline void load_lanes(const float* from, Floats& out) {
  std::memcpy(&out, from, sizeof(out));
}
[[gnu::always_inline]] inline void load_lanes(const uint16_t* from, Floats& out) {
  Halves bits;
  std::memcpy(&bits, from, sizeof(bits));
  out = (Floats)(__builtin_convertvector(bits, Words) << 16);
}

template <typename T>
[[gnu::always_inline]] inline void dots(const T* const (&w)[kRows], const float* x, int64_t in,
                                        float (&sums)[kRows]) {
  Floats lanes[kRows] = {};
  const int64_t whole = in / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    Floats of_x, of_w;
    load_lanes(x + i, of_x);
    for (int r = 0; r < kRows; ++r) {
      load_lanes(w[r] + i, of_w);
      lanes[r] += of_w * of_x;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float all[kLanes];
    std::memcpy(all, &lanes[r], sizeof(all));
    for (int64_t i = whole; i < in; ++i) all[i - whole] += load(w[r][i]) * x[i];
    sums[r] = sum_lanes(all);
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
#undef QLORA_DENSE_ROWS

}  // namespace

#ifndef __x86_64__
bool supports_bfloat16_rows() { return false; }
void multiply_rows(const uint16_t*, int64_t, int64_t, const uint16_t*, int64_t, float*, int64_t) {}
#endif

void multiply_rows(const float* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride) {
  multiply(w, rows, in, x, tokens, sums, stride);
}

void multiply_rows(const uint16_t* w, int64_t rows, int64_t in, const float* x, int64_t tokens,
                   float* sums, int64_t stride) {
  multiply(w, rows, in, x, tokens, sums, stride);
}

}  // namespace qlora::quant::cpu
