// Products that share a left factor, each with a thin bf16 product in the same sum, on CPUs with
// AVX-512 BF16 and VNNI:
//
//   out_i = out_i + scale_i h_i c_i + a b_i          (the first two terms where they are wanted)
//
// with b_i in bf16, or with the codes of LLM.int8() (int8.h). The sum is taken in fp32 and rounded
// once, or added in fp32 to a residual stream, whose large elements no 16-bit sum then rounds. In a
// training step an adapter's product costs what its operations cost: as a product of its own it
// writes and reads all of `out`, which at rank 16 takes three times as long. The kernels reach 95 %
// of the peak of their instruction, oneDNN's 80 to 90 %.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "quant/int8.h"

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

// Whether this machine has the kernels.
bool machine_sums_products();
// Whether there is a kernel for a product with this left factor [m, k] and terms of rank r.
bool sums_products(const at::Tensor& a, int64_t k, int64_t r);

// Factors on the right may be transposed views; all ranks and k are even. Bits do not depend on the
// number of threads.
void multiply_summed(const at::Tensor& a, const std::vector<SummedProduct>& products);

struct SummedInt8Product {
  Int8Tensor weight;  // [n, k]
  SumTarget to;
};

bool sums_int8_products(const at::Tensor& x, int64_t k, int64_t r);

// a b_i is int8_linear(x, weight_i, threshold) before its roundings. The input is quantized once.
void multiply_summed_int8(const at::Tensor& x, double threshold,
                          const std::vector<SummedInt8Product>& products);

}  // namespace qlora::quant
