// Products that share a left factor, each with a thin product in the same sum, on the CPU:
//
//   out_i = out_i + scale_i h_i c_i + a b_i          (the first two terms where they are wanted)
//
// with b_i dense, or with the codes of LLM.int8() (quant/int8/int8.h). The sum is taken in fp32 and
// rounded once, or added in fp32 to a residual stream, whose large elements no 16-bit sum then
// rounds. In a training step an adapter's product costs what its operations cost: as a product of
// its own it writes and reads all of `out`, which at rank 16 takes three times as long. bf16 has
// kernels for AVX-512 BF16, then the codes for VNNI (95 % of the peak of their instruction,
// oneDNN's 80 to 90 %); everything else is summed by float_product_kernels.h, codes among it.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "quant/int8/int8.h"
#include "quant/products/product.h"

namespace qlora::quant {

struct SumTarget {
  at::Tensor out;             // [m, n], rows contiguous
  bool accumulate;            // onto what `out` holds
  at::Tensor h = {}, c = {};  // [m, r], rows contiguous, and [r, n]; undefined for no term
  double scale = 1.0;
  // If defined, fp32 [m, n]: `out` is fp32, too, and becomes the sum with it. Not with accumulate.
  at::Tensor onto = {};
};

struct SummedProduct {
  at::Tensor b;  // [k, n]
  SumTarget to;
};

// Whether this machine's own bf16 and int8 sums are used: AVX-512 BF16 and VNNI, and no AMX, with
// which oneDNN multiplies several times faster.
bool machine_sums_bfloat16();
// Whether there is a kernel for a product with this left factor [m, k] and terms of rank r.
bool sums_products(const LeftOperand& a, int64_t k, int64_t r);

// Factors on the right may be transposed views, and where a is multiplied in fp32 (product.h) of
// any floating type. Bits do not depend on the number of threads.
void multiply_summed(const at::Tensor& a, const std::vector<SummedProduct>& products);

struct SummedInt8Product {
  Int8Tensor weight;  // [n, k]
  SumTarget to;
};

bool sums_int8_products(const LeftOperand& x, int64_t k, int64_t r);

// a b_i is int8_linear(x, weight_i, threshold) before its roundings. The input is quantized once.
void multiply_summed_int8(const at::Tensor& x, double threshold,
                          const std::vector<SummedInt8Product>& products);

}  // namespace qlora::quant
