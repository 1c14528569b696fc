// Matrix products, and the one place that chooses who makes them.
//
//   route          where                                             how
//   float          CPU: fp32, fp16, and bf16 without AVX-512 BF16    float_product_kernels.h:
//   converted while
//                                                                    packed, summed in fp32
//   bf16 sums      CPU with AVX-512 BF16 and VNNI, without AMX       summed_product_kernels.h
//   library        CPU with AVX-512 BF16; GPU                        oneDNN, cuBLAS
//
// So no 16-bit product reaches ATen where it has only scalar code for it. Few rows have kernels of
// their own (rows_product.h), and so have thin bf16 products (lora/low_rank.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace qlora::quant {

// The type as which weights are decoded for a product with `a`: its own, but float32 for float16 on
// a CPU.
at::ScalarType product_dtype(const at::Tensor& a);

// Whether products with `a` on the left take the route "float", in which each factor may have any
// floating type.
bool multiplies_in_float(const at::Tensor& a);
// The same of a device and a type: for plans.
bool multiplies_in_float(at::Device device, at::ScalarType dtype);

// Whether a CPU without a GPU's help multiplies bf16 at once, rather than as fp32: AVX-512 BF16.
bool cpu_multiplies_bfloat16();

// out (+)= scale a b: a [m, k], b [k, n], out [m, n]. In the route "float" of any floating types
// and with any strides one of which is 1; else all of a's type, or `out` fp32. The sum is taken in
// fp32 and rounded once, unless a library adds 16-bit factors to an fp32 `out`: then the product is
// rounded first.
void multiply_into(const at::Tensor& a, const at::Tensor& b, bool accumulate, const at::Tensor& out,
                   double scale = 1.0);
// The same as a new tensor of a's type.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// For `qlora doctor`: what each kind of product is multiplied by on this machine's CPU.
struct ProductRoute {
  std::string kind, route;
};
std::vector<ProductRoute> cpu_product_routes();

}  // namespace qlora::quant
