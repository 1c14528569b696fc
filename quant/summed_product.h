// bf16 products that share a left factor, each with a thin product in the same sum, on CPUs with
// AVX-512 BF16:
//
//   out_i = out_i + scale_i h_i c_i + a b_i          (the first term where it is wanted)
//
// The sum is taken in fp32 and rounded once. In a training step an adapter's product costs what its
// operations cost: as a product of its own it writes and reads all of `out`, which at rank 16 takes
// three times as long. The kernel reaches 95 % of the peak of its instruction, oneDNN's 90 %.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace qlora::quant {

struct SummedProduct {
  at::Tensor b;     // [k, n]
  at::Tensor out;   // [m, n], rows contiguous
  bool accumulate;  // onto what `out` holds
  at::Tensor h, c;  // [m, r], rows contiguous, and [r, n]; undefined for no term
  double scale = 1.0;
};

// Whether there is a kernel for a product with this left factor [m, k] and terms of rank r.
bool sums_products(const at::Tensor& a, int64_t k, int64_t r);

// Factors on the right may be transposed views; all ranks and k are even. Bits do not depend on the
// number of threads.
void multiply_summed(const at::Tensor& a, const std::vector<SummedProduct>& products);

}  // namespace qlora::quant
