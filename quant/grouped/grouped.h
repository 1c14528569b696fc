// Weights of b-bit codes with a scale and a zero for each group of a row's columns, the form to
// which GPTQ, AWQ, compressed-tensors, auto-round and HQQ (axis 1) files are brought when they are
// read:
//
//   W[r, i] = (code[r, i] - zero[r, g]) * scale[r, g],    g = group_of[i], or i / group_size
//
// in float32 on the stored scale, rounded once to what a product takes. All devices and instruction
// sets give the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "quant/few_rows/rows_product.h"

namespace qlora::quant {

struct GroupedTensor {
  int bits = 4;            // 1, 2, 3, 4 or 8
  int64_t in = 0;          // columns
  int64_t group_size = 0;  // columns of a group; the last group of a row may be shorter
  // uint8 [rows, grouped_row_bytes(bits, in)]: a row's codes one after the other as a little-endian
  // stream of bits, padded with zeros to whole words of 4 bytes.
  at::Tensor codes;
  at::Tensor scales;  // [rows, groups], float16, bfloat16 or float32
  // [rows, groups]: uint8, or of a floating type; undefined: every zero is `zero`.
  at::Tensor zeros;
  float zero = 0;
  // int32 [in]; undefined: groups of group_size columns in their order. Where it is defined,
  // group_size says nothing.
  at::Tensor group_of;

  int64_t rows() const { return codes.size(0); }
  int64_t groups() const { return scales.size(1); }
  int64_t bytes() const;
};

int64_t grouped_row_bytes(int bits, int64_t in);

// Error naming `name` and the part unless all parts are contiguous, shapes, types and devices fit
// each other and each entry of group_of is one of the groups.
void check_grouped(const GroupedTensor& weight, const std::string& name);

// Codes as numbers, uint8 [rows, in] below 2^bits, to the packed rows, and back; on the CPU. Error
// if a code is larger.
at::Tensor pack_codes(const at::Tensor& codes, int bits);
at::Tensor unpack_codes(const at::Tensor& packed, int bits, int64_t in);

// Rows [begin, end) of a weight that check_grouped() took to `out` [end - begin, in], contiguous,
// bf16, fp16 or fp32, on the weight's device.
void dequantize_grouped(const GroupedTensor& weight, int64_t begin, int64_t end, at::Tensor& out);

// The product of all rows with x [tokens, in] on the CPU, straight from the packed codes; must not
// outlive the weight. Null where there is no kernel for it; all have rows of a multiple of 32
// columns. Where group_of is undefined, so have groups, of 4 or 8 bits; else codes have 2 bits or
// more, and zeros are whole numbers: bytes, or one for all.
std::unique_ptr<RowsProduct> grouped_rows_product(const GroupedTensor& weight, const at::Tensor& x);

}  // namespace qlora::quant
