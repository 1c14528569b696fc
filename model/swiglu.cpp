#include "model/swiglu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "base/profile.h"
#include "model/element_pointer.h"
#include "model/swiglu_kernels.h"

namespace qlora::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

at::Tensor forward_cpu(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor out = at::empty_like(gate);
  with_elements(out, [&](auto* y) {
    using T = ElementOf<decltype(y)>;
    cpu::swiglu(elements<T>(gate), elements<T>(up), gate.numel(), y);
  });
  return out;
}

struct SwigluNode : torch::autograd::Function<SwigluNode> {
  static Variable forward(AutogradContext* ctx, const Variable& gate, const Variable& up) {
    const ProfileScope scope("swiglu");
    ctx->save_for_backward({gate, up});
    return forward_cpu(gate, up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("swiglu backward");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], dy = gradients[0].contiguous();
    at::Tensor d_gate = at::empty_like(gate), d_up = at::empty_like(up);
    with_elements(dy, [&](auto* d) {
      using T = ElementOf<decltype(d)>;
      cpu::swiglu_backward(elements<T>(gate), elements<T>(up), d, gate.numel(), elements<T>(d_gate),
                           elements<T>(d_up));
    });
    return {d_gate, d_up};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  check(gate.sizes() == up.sizes() && gate.is_contiguous() && up.is_contiguous(),
        "swiglu: gate and up must be contiguous and of one shape");
  if (!gate.is_cpu())
    return (at::silu(gate.to(at::kFloat)) * up.to(at::kFloat)).to(gate.scalar_type());
  if (!at::GradMode::is_enabled()) return forward_cpu(gate, up);
  return SwigluNode::apply(gate, up);
}

}  // namespace qlora::model
