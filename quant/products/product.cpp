#include "quant/products/product.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/instruction_set.h"
#include "quant/products/float_product.h"

namespace qlora::quant {
namespace {

constexpr int64_t kRowsAtOnce = 4096;

void multiply_in_float(const at::Tensor& a, const at::Tensor& b, bool accumulate,
                       const at::Tensor& out, double scale) {
  check(out.size(0) == a.size(0) && out.size(1) == b.size(1),
        "multiply_into: the output must be [{}, {}]", a.size(0), b.size(1));
  cpu::FloatProduct product = float_product_to(out, accumulate);
  product.terms[product.num_terms++] = float_term(a, b, scale);
  cpu::float_products(a.size(0), {&product, 1});
}

// 16-bit factors onto fp32. On a CPU the product is there by itself, and once more in fp32 within
// oneDNN, before it is added: some rows at a time, since one of them may be as large as an
// embedding.
void multiply_by_library_into_float(const at::Tensor& a, const at::Tensor& b, bool accumulate,
                                    at::Tensor out, double scale) {
  if (a.is_cuda() && accumulate) {
    at::addmm_out(out, out, a, b, at::kFloat, 1.0, scale);
    return;
  }
  if (!accumulate) out.zero_();
  const int64_t rows = a.size(0), at_once = a.is_cuda() ? rows : kRowsAtOnce;
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = std::min(at_once, rows - first);
    out.narrow(0, first, count).add_(at::mm(a.narrow(0, first, count), b), scale);
  }
}

void multiply_by_library(const at::Tensor& a, const at::Tensor& b, bool accumulate, at::Tensor out,
                         double scale) {
  if (out.scalar_type() != a.scalar_type())
    multiply_by_library_into_float(a, b, accumulate, out, scale);
  else if (accumulate || scale != 1.0)
    at::addmm_out(out, out, a, b, accumulate ? 1.0 : 0.0, scale);
  else
    at::mm_out(out, a, b);
}

}  // namespace

LeftOperand left_operand(const at::Tensor& a) {
  return {a.device().type(), a.scalar_type(), a.size(0)};
}

at::ScalarType product_dtype(const LeftOperand& a) {
  return a.device == at::kCPU && a.dtype == at::kHalf ? at::kFloat : a.dtype;
}

at::ScalarType product_dtype(const at::Tensor& a) { return product_dtype(left_operand(a)); }

bool cpu_multiplies_bfloat16() { return has_avx512_bfloat16(); }

bool multiplies_in_float(at::Device device, at::ScalarType dtype) {
  return device.is_cpu() && !(dtype == at::kBFloat16 && cpu_multiplies_bfloat16());
}

bool multiplies_in_float(const at::Tensor& a) {
  return multiplies_in_float(a.device(), a.scalar_type());
}

void multiply_into(const at::Tensor& a, const at::Tensor& b, bool accumulate, const at::Tensor& out,
                   double scale) {
  at::NoGradGuard no_grad;
  if (multiplies_in_float(a))
    multiply_in_float(a, b, accumulate, out, scale);
  else
    multiply_by_library(a, b, accumulate, out, scale);
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  multiply_into(a, b, false, out);
  return out;
}

}  // namespace qlora::quant
