// Matrix products in fp32 whose factors may be 16-bit: they are converted while they are packed, so
// that a bf16 product costs what an fp32 one does, and no fp32 copy of a whole matrix is made.
//
//   out (+)= Σ_s scale_s a_s b_s  (+ the product of codes)  (+ onto)
//
// with up to two terms s: a frozen product and the thin one of its adapter, in one sum that is
// rounded once. Of LLM.int8() the frozen product is that of codes (code_product_kernels.h); the
// terms are the adapter's and the outlier columns'. Loops after Goto and van de Geijn (2008): a
// block of b is packed and stays in the second-level cache, a panel of it in the first, register
// tiles of `out` take 256 terms at a time. Each element's terms are added in their order, whatever
// the number of threads and the lanes of a vector: AVX2 and AVX-512 give the same bits.
#pragma once

#include <cstdint>
#include <span>

#include "quant/elements/element_type.h"
#include "quant/products/code_product_kernels.h"

namespace qlora::quant::cpu {

// Element (i, j) lies at data[i * row_stride + j * column_stride], one of which is 1.
struct FloatFactor {
  const void* data;
  ElementType type;
  int64_t row_stride, column_stride;
};

struct FloatTerm {
  FloatFactor a;  // [m, depth]
  FloatFactor b;  // [depth, columns]
  int64_t depth;
  float scale;  // of b's elements, in fp32
};

// a null: none
struct CodesTerm {
  const LaidOutCodes* a;  // [m, depth]
  Int8Rows b;             // [columns, depth]
};

struct FloatProduct {
  FloatTerm terms[2];
  int num_terms;
  void* out;  // [m, columns]
  ElementType type;
  int64_t row_stride, column_stride;  // of out; one of them is 1
  int64_t columns;
  bool accumulate;    // onto what `out` holds
  const float* onto;  // or null; as `out` lies
  CodesTerm codes;
};

// Products of m rows each, at once.
void float_products(int64_t m, std::span<const FloatProduct> products);

}  // namespace qlora::quant::cpu
