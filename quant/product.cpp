#include "quant/product.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace qlora::quant {

at::ScalarType product_dtype(const at::Tensor& a) {
  return a.is_cpu() && a.scalar_type() == at::kHalf ? at::kFloat : a.scalar_type();
}

void multiply_into(const at::Tensor& a, const at::Tensor& b, bool accumulate, at::Tensor& out) {
  at::NoGradGuard no_grad;
  if (product_dtype(a) != a.scalar_type()) {
    const at::Tensor part = at::mm(a.to(product_dtype(a)), b);
    accumulate ? out.add_(part) : out.copy_(part);
  } else if (accumulate) {
    at::addmm_out(out, out, a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

}  // namespace qlora::quant
