#pragma once

#include <cstdint>
#include <span>

namespace qlora::quant::cpu {

// bf16 by its bits; element (i, j) lies at data[i * row_stride + j * column_stride], one of which
// is 1.
struct Factor {
  const uint16_t* data;
  int64_t row_stride, column_stride;
};

struct SummedProductArguments {
  Factor b;  // [k, columns]
  uint16_t* out;
  int64_t out_stride, columns;
  bool accumulate;
  const uint16_t* h;  // [m, rank]; rank 0: no term
  int64_t h_stride;
  Factor c;  // [rank, columns]
  int64_t rank;
  float scale;
};

bool supports_summed_products_avx512();
void summed_products_avx512(const uint16_t* a, int64_t a_stride, int64_t m, int64_t k,
                            std::span<const SummedProductArguments> products);

}  // namespace qlora::quant::cpu
