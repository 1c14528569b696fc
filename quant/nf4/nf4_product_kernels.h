// Products of few rows with a 4-bit weight on the CPU (quant/few_rows/rows_product.h), straight
// from the packed codes: one kernel for each instruction set.
//
// Each weight is the value that dequantize_range gives: of a block's scale and the table at most 16
// different products, rounded to `rounding`, in a register that nibbles look up. Codes are taken 16
// bytes, 32 elements, at a time: shifted copies of the bytes, whose lanes hold the elements in an
// order of the kernel's own. x is laid out in the same order beforehand, once.
#pragma once

#include <cstdint>
#include <span>

#include "quant/few_rows/for_tokens.h"
#include "quant/nf4/nf4_kernels.h"

namespace qlora::quant::cpu {

// Rows of whole blocks.
struct FourBitRows {
  const uint8_t* packed;  // of row 0
  FourBitScales scales;
  FourBitCode code;
  int64_t block_size, in;
  int64_t first_block;   // where row 0 begins
  ElementType rounding;  // of a dequantized weight
};

struct FourBitProduct {
  const char* name;
  bool (*supported)();
  // What x is laid out in; bf16 is for x in bf16.
  ElementType type;
  bool only_bfloat16;  // of weights that are rounded to it
  // One row of x of that type, `in` elements, laid out as `multiply` reads it.
  void (*lay_out)(const void* x, int64_t in, void* laid_out);
  // sums[t * stride + r - begin] = Σ_i x[t, i] W[r, i] for rows [begin, end); x [tokens, in], laid
  // out.
  void (*multiply)(const FourBitRows& rows, const void* x, int64_t tokens, int64_t begin,
                   int64_t end, float* sums, int64_t stride);
};

// Fastest first; the last one runs anywhere.
std::span<const FourBitProduct> four_bit_products();
// The first whose instructions are in use for x of `x` and weights rounded to `rounding`.
const FourBitProduct& four_bit_product(ElementType x, ElementType rounding);

// The scales of some rows in fp32, decoded a few rows ahead into a buffer of the thread: one of
// these at a time.
class ScaleRows {
 public:
  explicit ScaleRows(const FourBitRows& rows);
  // Those of rows [row, row + count), one row after the other; none at or past `end` is decoded.
  // Rows are asked for in ascending order.
  const float* of(int64_t row, int64_t count, int64_t end) {
    if (row + count > last_) decode_from(row, end);
    return scales_ + (row - first_) * blocks_;
  }

 private:
  void decode_from(int64_t row, int64_t end);

  const FourBitRows& rows_;
  int64_t blocks_, first_ = 0, last_ = 0;  // blocks of a row; the rows that are decoded
  float* scales_;
};

void lay_out_avx512_bfloat16(const void* x, int64_t in, void* laid_out);
void multiply_avx512_bfloat16(const FourBitRows& rows, const void* x, int64_t tokens, int64_t begin,
                              int64_t end, float* sums, int64_t stride);
void lay_out_avx2(const void* x, int64_t in, void* laid_out);
void multiply_avx2(const FourBitRows& rows, const void* x, int64_t tokens, int64_t begin,
                   int64_t end, float* sums, int64_t stride);
// For the other fp32 kernels: of 32 elements, 4 n + j of the result is 8 j + (n ^ 1), what begins
// double word j once the codes were shifted right by n nibbles.
void lay_out_by_nibble(const void* x, int64_t in, void* laid_out);

}  // namespace qlora::quant::cpu
