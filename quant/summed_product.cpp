#include "quant/summed_product.h"

#include "base/error.h"
#include "quant/summed_product_kernels.h"

namespace qlora::quant {
namespace {

// Below, packing a weight costs more than it gains.
constexpr int64_t kLeastRows = 32;

const uint16_t* bits(const at::Tensor& t) {
  return static_cast<const uint16_t*>(t.const_data_ptr());
}

cpu::Factor factor(const at::Tensor& t) {
  check(t.stride(0) == 1 || t.stride(1) == 1, "multiply_summed: a factor lies in neither order");
  return {bits(t), t.stride(0), t.stride(1)};
}

}  // namespace

bool sums_products(const at::Tensor& a, int64_t k, int64_t r) {
  static const bool supported = cpu::supports_summed_products_avx512();
  return supported && a.is_cpu() && a.scalar_type() == at::kBFloat16 && a.size(0) >= kLeastRows &&
         k % 2 == 0 && r % 2 == 0;
}

void multiply_summed(const at::Tensor& a, const std::vector<SummedProduct>& products) {
  check(a.stride(1) == 1, "multiply_summed: rows must be contiguous");
  std::vector<cpu::SummedProductArguments> arguments;
  for (const SummedProduct& p : products) {
    check(p.b.size(0) == a.size(1) && p.out.size(0) == a.size(0) && p.out.size(1) == p.b.size(1) &&
              p.out.stride(1) == 1 && p.b.scalar_type() == at::kBFloat16,
          "multiply_summed: the shapes of a product do not fit");
    const bool term = p.h.defined();
    check(!term || (p.h.stride(1) == 1 && p.h.size(1) == p.c.size(0) &&
                    p.c.size(1) == p.b.size(1) && p.c.scalar_type() == at::kBFloat16),
          "multiply_summed: the shapes of a term do not fit");
    arguments.push_back({.b = factor(p.b),
                         .out = static_cast<uint16_t*>(p.out.mutable_data_ptr()),
                         .out_stride = p.out.stride(0),
                         .columns = p.out.size(1),
                         .accumulate = p.accumulate,
                         .h = term ? bits(p.h) : nullptr,
                         .h_stride = term ? p.h.stride(0) : 0,
                         .c = term ? factor(p.c) : cpu::Factor{},
                         .rank = term ? p.h.size(1) : 0,
                         .scale = static_cast<float>(p.scale)});
  }
  cpu::summed_products_avx512(bits(a), a.stride(0), a.size(0), a.size(1), arguments);
}

}  // namespace qlora::quant
