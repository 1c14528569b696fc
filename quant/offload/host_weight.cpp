#include "quant/offload/host_weight.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/error.h"
#include "quant/offload/offloaded_weight.h"

namespace qlora::quant {
namespace {

at::Tensor on_host(const at::Tensor& x) { return x.to(at::kCPU, at::kFloat).contiguous(); }

// to (+)= what was made on the host; a sum is taken before it is rounded.
void bring_back(const at::Tensor& made, bool accumulate, at::Tensor& to) {
  accumulate ? to.add_(made.to(to.device())) : to.copy_(made);
}

}  // namespace

HostWeight::HostWeight(std::unique_ptr<FrozenWeight> weight, at::Device device)
    : weight_(std::move(weight)), device_(device) {
  check(weight_->device().is_cpu(), "HostWeight: the weight must lie on the CPU, found {}",
        weight_->device().str());
}

void HostWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                 at::Tensor& out) const {
  if (out.is_cpu()) return weight_->dequantize_rows(expert, begin, end, out);
  at::Tensor rows = at::empty(out.sizes(), out.options().device(at::kCPU));
  weight_->dequantize_rows(expert, begin, end, rows);
  out.copy_(rows);
}

void HostWeight::forward_into(const at::Tensor& x, at::Tensor& y, bool accumulate,
                              Workspace& workspace, int64_t expert) const {
  bring_back(weight_->forward(on_host(x), workspace, expert), accumulate, y);
}

void HostWeight::input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                                     Workspace& workspace, int64_t expert) const {
  const at::Tensor given = on_host(dy);
  at::Tensor made = at::empty({dy.size(0), in_features()}, given.options());
  weight_->input_gradient_into(given, made, false, workspace, expert);
  bring_back(made, accumulate, dx);
}

std::unique_ptr<FrozenWeight> HostWeight::replaced_by(std::unique_ptr<FrozenWeight> weight) const {
  for (at::Tensor* part : weight->parts())
    if (part->defined()) *part = part->cpu();
  return std::make_unique<HostWeight>(placed_as(*weight_, std::move(weight)), device_);
}

}  // namespace qlora::quant
