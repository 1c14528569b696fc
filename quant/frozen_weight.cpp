#include "quant/frozen_weight.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "quant/few_rows/dense_rows_product.h"
#include "quant/products/product.h"

namespace qlora::quant {
namespace {

// y (+)= x Wᵀ. The integer product comes rounded, as bitsandbytes has it.
void multiply_int8_into(const at::Tensor& x, const Int8Factor& factor, bool accumulate,
                        at::Tensor& y) {
  const at::Tensor product = int8_linear(x, factor.weight, factor.threshold);
  accumulate ? y.add_(product) : y.copy_(product);
}

}  // namespace

at::Tensor FrozenWeight::materialize(at::ScalarType dtype, Workspace& workspace,
                                     int64_t expert) const {
  const at::Tensor stored = stored_rows(dtype, expert);
  if (stored.defined()) return stored;
  at::Tensor rows =
      workspace.matrix(Workspace::Slot::kWeight, out_features(), in_features(), dtype, device());
  dequantize_rows(expert, 0, out_features(), rows);
  return rows;
}

at::Tensor FrozenWeight::stored_rows(at::ScalarType, int64_t) const { return at::Tensor(); }

std::optional<Int8Factor> FrozenWeight::int8_factor(int64_t) const { return std::nullopt; }

at::Tensor FrozenWeight::forward(const at::Tensor& x, Workspace& workspace, int64_t expert) const {
  at::Tensor y = at::empty({x.size(0), out_features()}, x.options());
  forward_into(x, y, false, workspace, expert);
  return y;
}

void FrozenWeight::forward_into(const at::Tensor& x, at::Tensor& y, bool accumulate,
                                Workspace& workspace, int64_t expert) const {
  ProductFacts facts{.left = left_operand(x)};
  facts.layers.push_back({traits(), out_features(), in_features()});
  switch (product_route(facts, Pass::kForward).run) {
    case ProductRun::kFewRows:
      return multiply_few_rows({this}, x, accumulate, y, expert);
    case ProductRun::kInt8:
      return multiply_int8_into(x, int8_factor(expert).value(), accumulate, y);
    default:
      return multiply_into(x, materialize(rows_dtype(facts), workspace, expert).t(), accumulate, y);
  }
}

std::unique_ptr<RowsProduct> FrozenWeight::rows_product(const at::Tensor& x, int64_t expert) const {
  const at::Tensor stored = stored_rows(traits().dtype, expert);
  return stored.defined() ? dense_rows_product(stored, x)
                          : dequantized_rows_product(*this, expert, x);
}

void FrozenWeight::input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                                       Workspace& workspace, int64_t expert) const {
  const at::ScalarType dtype = rows_dtype(left_operand(dy), traits());
  multiply_into(dy, materialize(dtype, workspace, expert), accumulate, dx);
}

DenseWeight::DenseWeight(at::Tensor weight)
    : weight_(std::move(weight)), shape_(WeightShape::of(weight_.sizes().vec(), "DenseWeight")) {
  check(weight_.is_contiguous() && weight_.is_floating_point(),
        "DenseWeight: the weight must be contiguous and of a floating type");
}

std::string DenseWeight::format() const {
  switch (weight_.scalar_type()) {
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      return "float32";
  }
}

void DenseWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                  at::Tensor& out) const {
  const int64_t first = shape_.first_row(expert, begin, end, "DenseWeight");
  out.copy_(weight_.view({-1, shape_.in}).narrow(0, first, end - begin));
}

at::Tensor DenseWeight::stored_rows(at::ScalarType dtype, int64_t expert) const {
  if (weight_.scalar_type() != dtype) return at::Tensor();
  const int64_t first = shape_.first_row(expert, 0, shape_.out, "DenseWeight");
  return weight_.view({-1, shape_.in}).narrow(0, first, shape_.out);
}

}  // namespace qlora::quant
