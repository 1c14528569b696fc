// Products of the codes of LLM.int8() (quant/int8/int8.h) on the CPU, as terms of sums in fp32
// (float_product_kernels.h): integers that are exact, then each made a number by the scales of its
// row and its column,
//
//   (Σ_p a[i, p] b[j, p]) absmax_a[i] absmax_b[j] / 127²
//
// One algorithm for each instruction set: a panel of columns is packed, and rows of a that were
// laid out beforehand are taken through it in tiles whose sums stay in registers. A few rows meet
// the codes of b where they lie. Bits are the same everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/int8/int8_kernels.h"

namespace qlora::quant::cpu {

struct LaidOutCodes;

struct CodeProductArguments {
  const LaidOutCodes* a;
  int64_t row, rows;  // of a
  Int8Rows b;         // from the first column on
  int64_t columns;
  bool accumulate;
  float* sums;  // [rows, columns]; columns up to a multiple of 16 are written
  int64_t stride;
};

struct CodeProduct {
  const char* name;  // for people
  bool (*supported)();
  int codes;  // of a word (base/simd/codes.h)
  // One row; words up to a multiple of 16 are written.
  void (*lay_out)(const int8_t* codes, int64_t depth, int32_t* words);
  void (*multiply)(const CodeProductArguments& arguments);
};

// Fastest first; the last one runs anywhere.
std::span<const CodeProduct> code_products();
// The first whose instructions are in use.
const CodeProduct& code_product();

// The codes of x as a kernel reads them.
struct LaidOutCodes {
  const CodeProduct* kernel;
  int64_t depth, stride;        // codes of a row, and words
  std::vector<int32_t> words;   // [rows, stride]
  std::vector<int32_t> starts;  // of each row's sums
  const float* absmax;
};
// depth: at most kMostCodes.
LaidOutCodes lay_out_codes(const CodeProduct& kernel, const Int8Rows& rows, int64_t num_rows,
                           int64_t depth);

// Of which int32 holds any sum of products of 8 bits with 7.
constexpr int64_t kMostCodes = 65536;

}  // namespace qlora::quant::cpu
