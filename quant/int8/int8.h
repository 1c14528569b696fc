// LLM.int8() (Dettmers et al. 2022): a linear layer whose weight is kept in 8 bits, one scale a
// row, and whose input is quantized per row (token) when it arrives.
//
//   absmax_w[o] = max |W[o, :]|
//   W[o, i]     ~ codes_w[o, i] absmax_w[o] / 127
//   y[t, o]     = (Σ_i codes_x[t, i] codes_w[o, i]) absmax_x[t] absmax_w[o] / 127²
//                 + Σ_outliers x[t, i] W[o, i]
//
// Outliers are the columns in which any |x| >= threshold; the other columns of x get their codes
// token by token, as W row by row. The first sum is in int32, the second in x's own dtype.
//
// Codes are those of bitsandbytes' int8_vectorwise_quant on the same device: the input is rounded
// to fp16 first, codes to the nearest integer, ties to even. Two deliberate differences:
// activations beyond fp16's range saturate at ±65504 instead of becoming infinite, and a NaN
// reaches the output. bitsandbytes' constants for 1/127² (6.200124e-05 on the CPU, 6.200012e-05 on
// CUDA) are used as they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace qlora::quant {

struct Int8Tensor {
  at::Tensor codes;   // int8 [rows, columns]; of stacked experts [experts, out, in]
  at::Tensor absmax;  // fp32 [rows]
};

// weight [out, in] or [experts, out, in]: contiguous bf16, fp16 or fp32. Error that calls the
// weight `name` and says which row holds a NaN, an infinity, or a number too large for fp16.
Int8Tensor quantize_int8(const at::Tensor& weight, const std::string& name = "the weight");

// Writes rows [begin, end) to `out` [end - begin, in]: contiguous fp32, bf16 or fp16; the fp32
// product codes * absmax * (1 / 127) rounded once.
void dequantize_int8(const Int8Tensor& weight, int64_t begin, int64_t end, at::Tensor& out);

struct Int8Activation {
  Int8Tensor rows;
  at::Tensor outliers;  // int64, ascending column indices; empty without a threshold
};

// x [tokens, in]: contiguous fp32, bf16 or fp16. threshold 0: no outliers. With one, a GPU is
// waited for.
Int8Activation quantize_int8_activation(const at::Tensor& x, double threshold);

// y [tokens, out] in x's dtype, as in the formula above.
at::Tensor int8_linear(const at::Tensor& x, const Int8Tensor& weight, double threshold);

}  // namespace qlora::quant
