// Products of two matrices, and who makes them:
//
//   in float       CPU: fp32, fp16, and bf16 without AVX-512 BF16    float_product_kernels.h:
//                                                                    converted while packed, summed
//                                                                    in fp32
//   the library    CPU with AVX-512 BF16; GPU                        oneDNN, cuBLAS
//
// So no 16-bit product reaches ATen where it has only scalar code for it. Products of frozen
// weights have more routes than these two (product_routes.h), and so have thin bf16 products
// (lora/low_rank.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qlora::quant {

// What decides of the left factor [rows, k] who makes a product.
struct LeftOperand {
  at::DeviceType device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;
  int64_t rows = 0;
};
LeftOperand left_operand(const at::Tensor& a);

// The type as which weights are decoded for a product with `a`: its own, but float32 for float16 on
// a CPU.
at::ScalarType product_dtype(const LeftOperand& a);
at::ScalarType product_dtype(const at::Tensor& a);

// Whether products with `a` on the left are made "in float", where each factor may have any
// floating type.
bool multiplies_in_float(const at::Tensor& a);
bool multiplies_in_float(at::Device device, at::ScalarType dtype);

// Whether a CPU without a GPU's help multiplies bf16 at once, rather than as fp32: AVX-512 BF16.
bool cpu_multiplies_bfloat16();

// out (+)= scale a b: a [m, k], b [k, n], out [m, n]. Where it is made in float, of any floating
// types and with any strides one of which is 1; else all of a's type, or `out` fp32. The sum is
// taken in fp32 and rounded once, unless a library adds 16-bit factors to an fp32 `out`: then the
// product is rounded first.
void multiply_into(const at::Tensor& a, const at::Tensor& b, bool accumulate, const at::Tensor& out,
                   double scale = 1.0);
// The same as a new tensor of a's type.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

}  // namespace qlora::quant
