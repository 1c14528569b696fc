#include "quant/frozen_weight.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace qlora::quant {
namespace {

// Without float16 arithmetic a CPU multiplies it some hundred times slower than float32.
bool multiplies_in_float32(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kHalf;
}

}  // namespace

at::Tensor FrozenWeight::materialize(at::ScalarType dtype, Workspace& workspace,
                                     int64_t expert) const {
  at::Tensor rows =
      workspace.matrix(Workspace::Slot::kWeight, out_features(), in_features(), dtype, device());
  dequantize_rows(expert, 0, out_features(), rows);
  return rows;
}

at::Tensor FrozenWeight::forward(const at::Tensor& x, Workspace& workspace, int64_t expert) const {
  at::NoGradGuard no_grad;
  if (multiplies_in_float32(x))
    return at::mm(x.to(at::kFloat), materialize(at::kFloat, workspace, expert).t()).to(at::kHalf);
  return at::mm(x, materialize(x.scalar_type(), workspace, expert).t());
}

void FrozenWeight::input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                                       Workspace& workspace, int64_t expert) const {
  at::NoGradGuard no_grad;
  if (multiplies_in_float32(dy)) {
    const at::Tensor part = at::mm(dy.to(at::kFloat), materialize(at::kFloat, workspace, expert));
    accumulate ? dx.add_(part) : dx.copy_(part);
    return;
  }
  const at::Tensor weight = materialize(dy.scalar_type(), workspace, expert);
  if (accumulate)
    at::addmm_out(dx, dx, dy, weight);
  else
    at::mm_out(dx, dy, weight);
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

at::Tensor DenseWeight::materialize(at::ScalarType dtype, Workspace& workspace,
                                    int64_t expert) const {
  if (weight_.scalar_type() == dtype) {
    const int64_t first = shape_.first_row(expert, 0, shape_.out, "DenseWeight");
    return weight_.view({-1, shape_.in}).narrow(0, first, shape_.out);
  }
  return FrozenWeight::materialize(dtype, workspace, expert);
}

}  // namespace qlora::quant
