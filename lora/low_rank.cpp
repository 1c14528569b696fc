#include "lora/low_rank.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/instruction_set.h"
#include "base/profile.h"
#include "lora/low_rank_kernels.h"
#include "quant/few_rows/dense_rows_product.h"
#include "quant/products/product.h"

namespace qlora::lora {
namespace {

bool has_kernel(const at::Tensor& activations, int64_t rank, int64_t features) {
  return has_avx512_bfloat16() && activations.is_cpu() &&
         activations.scalar_type() == at::kBFloat16 && rank % 2 == 0 && features % 2 == 0 &&
         activations.size(0) > 0;
}

ConstRows rows_of(const at::Tensor& t) {
  check(t.stride(1) == 1 || t.size(1) == 1, "low-rank product: rows must be contiguous");
  return {static_cast<const uint16_t*>(t.const_data_ptr()), t.stride(0)};
}

Rows mutable_rows_of(const at::Tensor& t) {
  check(t.stride(1) == 1 || t.size(1) == 1, "low-rank product: rows must be contiguous");
  return {static_cast<uint16_t*>(t.mutable_data_ptr()), t.stride(0)};
}

// Whether few rows of x meet a factor [n, k] that lies as a product of few rows takes it: without
// being packed first, which takes longer than such a product.
bool are_few(const at::Tensor& x, const at::Tensor& factor) {
  return x.is_cpu() && x.size(0) <= quant::kFewRows && factor.is_contiguous() &&
         factor.scalar_type() == x.scalar_type();
}

// y (+)= scale x factorᵀ.
void multiply_few(const at::Tensor& x, const at::Tensor& factor, double scale, bool accumulate,
                  at::Tensor& y) {
  quant::multiply_few_rows(*quant::dense_rows_product(factor, x), x.size(1),
                           static_cast<float>(scale), accumulate, y);
}

}  // namespace

void low_rank_down(const at::Tensor& x, const at::Tensor& a, double scale, at::Tensor h) {
  const ProfileScope scope("lora down");
  const int64_t tokens = x.size(0), in = x.size(1), rank = a.size(0);
  if (are_few(x, a)) return multiply_few(x, a, scale, false, h);
  if (!has_kernel(x, rank, in)) return quant::multiply_into(x, a.t(), false, h, scale);
  const auto s = static_cast<float>(scale);
  if (a.stride(1) == 1)
    cpu::low_rank_down(rows_of(x), rows_of(a), tokens, in, rank, s, mutable_rows_of(h));
  else
    cpu::low_rank_down_transposed(rows_of(x), rows_of(a.t()), tokens, in, rank, s,
                                  mutable_rows_of(h));
}

void low_rank_up(const at::Tensor& h, const at::Tensor& b, double scale, bool accumulate,
                 at::Tensor y) {
  const ProfileScope scope("lora up");
  const int64_t tokens = h.size(0), rank = h.size(1), out = b.size(0);
  if (are_few(h, b)) return multiply_few(h, b, scale, accumulate, y);
  if (!has_kernel(h, rank, out)) return quant::multiply_into(h, b.t(), accumulate, y, scale);
  const auto s = static_cast<float>(scale);
  if (b.stride(1) == 1)
    cpu::low_rank_up(rows_of(h), rows_of(b), tokens, rank, out, s, accumulate, mutable_rows_of(y));
  else
    cpu::low_rank_up_transposed(rows_of(h), rows_of(b.t()), tokens, rank, out, s, accumulate,
                                mutable_rows_of(y));
}

void low_rank_gradient(const at::Tensor& h, const at::Tensor& x, double scale,
                       at::Tensor gradient) {
  const ProfileScope scope("lora gradient");
  const int64_t tokens = h.size(0), rank = h.size(1), in = x.size(1);
  if (!has_kernel(h, rank, in)) return quant::multiply_into(h.t(), x, true, gradient, scale);
  cpu::low_rank_gradient(
      rows_of(h), rows_of(x), tokens, rank, in, static_cast<float>(scale),
      {gradient.mutable_data_ptr<float>(), gradient.stride(0), gradient.stride(1)});
}

}  // namespace qlora::lora
