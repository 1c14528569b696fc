#include "model/swiglu.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "lora/columns.h"
#include "model/swiglu_kernels.h"
#include "quant/element_tensor.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

ConstRows rows_of(const at::Tensor& t) { return {t.const_data_ptr(), t.stride(0)}; }
MutableRows mutable_rows_of(const at::Tensor& t) { return {t.mutable_data_ptr(), t.stride(0)}; }

at::Tensor product(const at::Tensor& gate, const at::Tensor& up) {
  const ProfileScope scope("swiglu");
  at::Tensor out = at::empty(gate.sizes(), gate.options());
  const Swiglu arguments{rows_of(gate),        rows_of(up),
                         mutable_rows_of(out), quant::element_type(gate, "swiglu"),
                         gate.size(0),         gate.size(1)};
  QLORA_DISPATCH(gate.device(), cpu::swiglu(arguments),
                 cuda::swiglu(arguments, current_stream(gate.device())));
  return out;
}

struct SwigluNode : lora::Function<SwigluNode> {
  static Variable forward(AutogradContext* ctx, const Variable& gate, const Variable& up,
                          const KeptGates* kept) {
    ctx->save_for_backward({kept->gate, kept->up});
    return product(gate, up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("swiglu backward");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor dy = gradients[0].contiguous();
    const at::Tensor gate = saved[0].to(dy.scalar_type()), up = saved[1].to(dy.scalar_type());
    // Side by side, as one product with the two weights' rows takes them.
    const at::Tensor both = at::empty({gate.size(0), 2 * gate.size(1)}, gate.options());
    const auto d = lora::columns_of(both, {gate.size(1), gate.size(1)});
    const SwigluBackward arguments{rows_of(gate),         rows_of(up),
                                   rows_of(dy),           mutable_rows_of(d[0]),
                                   mutable_rows_of(d[1]), quant::element_type(gate, "swiglu"),
                                   gate.size(0),          gate.size(1)};
    QLORA_DISPATCH(gate.device(), cpu::swiglu_backward(arguments),
                   cuda::swiglu_backward(arguments, current_stream(gate.device())));
    return {d[0], d[1], Variable()};
  }
};

}  // namespace

KeptGates keep_gates(const at::Tensor& gate, const at::Tensor& up, at::ScalarType type) {
  return {gate.detach().to(type), up.detach().to(type)};
}

at::Tensor swiglu_again(const KeptGates& kept, at::ScalarType type) {
  at::NoGradGuard no_grad;
  return product(kept.gate.to(type), kept.up.to(type));
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up, const KeptGates& kept) {
  check(gate.sizes() == up.sizes() && gate.stride(1) == 1 && up.stride(1) == 1,
        "swiglu: gate and up must be of one shape and have contiguous rows");
  if (!at::GradMode::is_enabled()) return product(gate, up);
  return SwigluNode::apply(gate, up, &kept);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return swiglu(gate, up, keep_gates(gate, up, gate.scalar_type()));
}

}  // namespace qlora::model
