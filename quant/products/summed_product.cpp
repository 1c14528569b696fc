#include "quant/products/summed_product.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/instruction_set.h"
#include "quant/few_rows/rows_product.h"
#include "quant/products/float_product.h"
#include "quant/products/product.h"
#include "quant/products/summed_product_kernels.h"

namespace qlora::quant {
namespace {

const uint16_t* bits(const at::Tensor& t) {
  return static_cast<const uint16_t*>(t.const_data_ptr());
}

cpu::Factor factor(const at::Tensor& t) {
  check(t.scalar_type() == at::kBFloat16 && (t.stride(0) == 1 || t.stride(1) == 1),
        "multiply_summed: a factor is not bfloat16, or lies in neither order");
  return {bits(t), t.stride(0), t.stride(1)};
}

cpu::Int8Rows rows_of(const Int8Tensor& t) {
  return {t.codes.const_data_ptr<int8_t>(), t.codes.stride(0), t.absmax.const_data_ptr<float>()};
}

// The target of a product of [m, k] with [k, n].
cpu::SummedOutput output_of(const SumTarget& p, int64_t m, int64_t n) {
  check(p.out.size(0) == m && p.out.size(1) == n && p.out.stride(1) == 1,
        "multiply_summed: the shapes of a product do not fit");
  const bool wide = p.onto.defined();
  check(p.out.scalar_type() == (wide ? at::kFloat : at::kBFloat16) && !(wide && p.accumulate) &&
            (!wide || (p.onto.sizes() == p.out.sizes() && p.onto.is_contiguous() &&
                       p.out.is_contiguous() && p.onto.scalar_type() == at::kFloat)),
        "multiply_summed: the output of a product does not fit what it is added to");
  const bool term = p.h.defined();
  check(!term || (p.h.size(0) == m && p.h.stride(1) == 1 && p.h.size(1) == p.c.size(0) &&
                  p.c.size(1) == n),
        "multiply_summed: the shapes of a term do not fit");
  return {.out = wide ? nullptr : static_cast<uint16_t*>(p.out.mutable_data_ptr()),
          .onto = wide ? p.onto.const_data_ptr<float>() : nullptr,
          .wide_out = wide ? p.out.mutable_data_ptr<float>() : nullptr,
          .out_stride = p.out.stride(0),
          .columns = n,
          .accumulate = p.accumulate,
          .h = term ? bits(p.h) : nullptr,
          .h_stride = term ? p.h.stride(0) : 0,
          .c = term ? factor(p.c) : cpu::Factor{},
          .rank = term ? p.h.size(1) : 0,
          .scale = static_cast<float>(p.scale)};
}

// Columns of a matrix, and a column of zeros if their number is odd.
at::Tensor even_columns(const at::Tensor& t, const at::Tensor& index) {
  const int64_t count = index.numel();
  if (count % 2 == 0) return t.index_select(1, index);
  at::Tensor columns = at::zeros({t.size(0), count + 1}, t.options());
  columns.narrow(1, 0, count).copy_(t.index_select(1, index));
  return columns;
}

bool sums_in_bfloat16(const LeftOperand& a) {
  return a.device == at::kCPU && a.dtype == at::kBFloat16 && machine_sums_bfloat16();
}

void multiply_summed_in_float(const at::Tensor& a, const std::vector<SummedProduct>& products) {
  std::vector<cpu::FloatProduct> arguments;
  for (const SummedProduct& p : products) {
    check(p.to.out.size(0) == a.size(0) && p.to.out.size(1) == p.b.size(1),
          "multiply_summed: the shapes of a product do not fit");
    check(!p.to.h.defined() || (p.to.h.size(0) == a.size(0) && p.to.c.size(1) == p.b.size(1)),
          "multiply_summed: the shapes of a term do not fit");
    cpu::FloatProduct to = float_product_to(p.to.out, p.to.accumulate, p.to.onto);
    if (p.to.h.defined()) to.terms[to.num_terms++] = float_term(p.to.h, p.to.c, p.to.scale);
    to.terms[to.num_terms++] = float_term(a, p.b, 1.0);
    arguments.push_back(to);
  }
  cpu::float_products(a.size(0), arguments);
}

// The weight's columns that x has outliers in, decoded to x's type.
at::Tensor outlier_columns(const Int8Tensor& weight, const at::Tensor& columns,
                           const at::TensorOptions& options) {
  const Int8Tensor part{columns, weight.absmax};
  at::Tensor decoded = at::empty(columns.sizes(), options);
  dequantize_int8(part, 0, columns.size(0), decoded);
  return decoded;
}

void multiply_summed_int8_in_float(const at::Tensor& x, const Int8Activation& input,
                                   const std::vector<SummedInt8Product>& products) {
  const cpu::LaidOutCodes codes =
      cpu::lay_out_codes(cpu::code_product(), rows_of(input.rows), x.size(0), x.size(1));
  const bool any = input.outliers.numel() > 0;
  const at::Tensor columns = any ? x.index_select(1, input.outliers) : at::Tensor();
  std::vector<cpu::FloatProduct> arguments;
  std::vector<at::Tensor> kept;  // the weights' outlier columns
  for (const SummedInt8Product& p : products) {
    check(p.to.out.size(0) == x.size(0) && p.to.out.size(1) == p.weight.codes.size(0),
          "multiply_summed_int8: the shapes of a product do not fit");
    cpu::FloatProduct to = float_product_to(p.to.out, p.to.accumulate, p.to.onto);
    if (p.to.h.defined()) to.terms[to.num_terms++] = float_term(p.to.h, p.to.c, p.to.scale);
    if (any) {
      kept.push_back(
          outlier_columns(p.weight, p.weight.codes.index_select(1, input.outliers), x.options()));
      to.terms[to.num_terms++] = float_term(columns, kept.back().t(), 1.0);
    }
    to.codes = {&codes, rows_of(p.weight)};
    arguments.push_back(to);
  }
  cpu::float_products(x.size(0), arguments);
}

void multiply_summed_int8_in_bfloat16(const at::Tensor& x, const Int8Activation& input,
                                      const std::vector<SummedInt8Product>& products) {
  const bool any = input.outliers.numel() > 0;
  const at::Tensor columns = any ? even_columns(x, input.outliers) : at::Tensor();
  std::vector<cpu::SummedInt8Arguments> arguments;
  std::vector<at::Tensor> kept;  // the weights' outlier columns
  for (const SummedInt8Product& p : products) {
    const int64_t n = p.weight.codes.size(0);
    if (any)
      kept.push_back(
          outlier_columns(p.weight, even_columns(p.weight.codes, input.outliers), x.options()));
    arguments.push_back({.weight = rows_of(p.weight),
                         .outliers = any ? factor(kept.back().t()) : cpu::Factor{},
                         .to = output_of(p.to, x.size(0), n)});
  }
  cpu::summed_int8_products_avx512({.rows = rows_of(input.rows),
                                    .m = x.size(0),
                                    .k = x.size(1),
                                    .outliers = any ? bits(columns) : nullptr,
                                    .num_outliers = any ? columns.size(1) : 0},
                                   arguments);
}

}  // namespace

bool machine_sums_bfloat16() {
  return has_avx512_bfloat16() && has_avx512_vnni() && !has_amx_bfloat16();
}

bool sums_products(const LeftOperand& a, int64_t k, int64_t r) {
  if (multiplies_in_float(a.device, a.dtype)) return a.rows > kFewRows;
  return sums_in_bfloat16(a) && a.rows > kFewRows && k % 2 == 0 && r % 2 == 0;
}

bool sums_int8_products(const LeftOperand& x, int64_t k, int64_t r) {
  if (k > cpu::kMostCodes || !sums_products(x, k, r)) return false;
  return multiplies_in_float(x.device, x.dtype) || k % 4 == 0;
}

void multiply_summed(const at::Tensor& a, const std::vector<SummedProduct>& products) {
  check(a.stride(1) == 1, "multiply_summed: rows must be contiguous");
  if (!sums_in_bfloat16(left_operand(a))) return multiply_summed_in_float(a, products);
  std::vector<cpu::SummedProductArguments> arguments;
  for (const SummedProduct& p : products) {
    check(p.b.size(0) == a.size(1), "multiply_summed: the shapes of a product do not fit");
    arguments.push_back({.b = factor(p.b), .to = output_of(p.to, a.size(0), p.b.size(1))});
  }
  cpu::summed_products_avx512({bits(a), a.stride(0), a.size(0), a.size(1)}, arguments);
}

void multiply_summed_int8(const at::Tensor& x, double threshold,
                          const std::vector<SummedInt8Product>& products) {
  for (const SummedInt8Product& p : products)
    check(p.weight.codes.size(1) == x.size(1) && x.size(1) <= cpu::kMostCodes,
          "multiply_summed_int8: the shapes of a product do not fit");
  const Int8Activation input = quantize_int8_activation(x.contiguous(), threshold);
  if (sums_in_bfloat16(left_operand(x)))
    multiply_summed_int8_in_bfloat16(x, input, products);
  else
    multiply_summed_int8_in_float(x, input, products);
}

}  // namespace qlora::quant
