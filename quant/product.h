// Matrix products whose sum with what is there already is rounded once.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::quant {

// The type in which the device multiplies `a`: its own, but float32 for float16 on a CPU, which
// without float16 arithmetic multiplies it some hundred times slower.
at::ScalarType product_dtype(const at::Tensor& a);

// out (+)= a b: a [m, k], out [m, n] of one dtype, b [k, n] of product_dtype(a). Added in fp32
// before the sum is rounded.
void multiply_into(const at::Tensor& a, const at::Tensor& b, bool accumulate, at::Tensor& out);

}  // namespace qlora::quant
