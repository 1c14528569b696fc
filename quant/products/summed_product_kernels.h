#pragma once

#include <cstdint>
#include <span>

#include "quant/int8/int8_kernels.h"

namespace qlora::quant::cpu {

// bf16 by its bits; element (i, j) lies at data[i * row_stride + j * column_stride], one of which
// is 1.
struct Factor {
  const uint16_t* data;
  int64_t row_stride, column_stride;
};

// Where a product goes, and the thin product in the same sum.
struct SummedOutput {
  uint16_t* out;
  // If not null, wide_out = onto + the sum, of the same stride, and `out` is not used.
  const float* onto;
  float* wide_out;
  int64_t out_stride, columns;
  bool accumulate;
  const uint16_t* h;  // [m, rank]; rank 0: no term
  int64_t h_stride;
  Factor c;  // [rank, columns]
  int64_t rank;
  float scale;
};

struct SummedProductArguments {
  Factor b;  // [k, columns]
  SummedOutput to;
};

// a [m, k]
struct LeftFactor {
  const uint16_t* data;
  int64_t stride, m, k;
};

struct SummedInt8Arguments {
  Int8Rows weight;  // [columns, k]
  Factor outliers;  // [number of outliers, columns]
  SummedOutput to;
};

// codes [m, k], and the columns that are multiplied in bf16, [m, number of them]; their codes are
// 0.
struct LeftInt8 {
  Int8Rows rows;
  int64_t m, k;
  const uint16_t* outliers;
  int64_t num_outliers;
};

// For AVX-512 BF16, the second also VNNI; all ranks and k are even.
void summed_products_avx512(const LeftFactor& a, std::span<const SummedProductArguments> products);
void summed_int8_products_avx512(const LeftInt8& a, std::span<const SummedInt8Arguments> products);

}  // namespace qlora::quant::cpu
