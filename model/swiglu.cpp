#include "model/swiglu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "model/swiglu_kernels.h"

namespace qlora::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

uint16_t* bits(const at::Tensor& t) { return static_cast<uint16_t*>(t.data_ptr()); }

at::Tensor forward_cpu(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor out = at::empty_like(gate);
  if (gate.scalar_type() == at::kFloat)
    cpu::swiglu(gate.data_ptr<float>(), up.data_ptr<float>(), gate.numel(), out.data_ptr<float>());
  else
    cpu::swiglu(bits(gate), bits(up), gate.numel(), bits(out));
  return out;
}

struct SwigluNode : torch::autograd::Function<SwigluNode> {
  static Variable forward(AutogradContext* ctx, const Variable& gate, const Variable& up) {
    ctx->save_for_backward({gate, up});
    return forward_cpu(gate, up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], dy = gradients[0].contiguous();
    at::Tensor d_gate = at::empty_like(gate), d_up = at::empty_like(up);
    if (gate.scalar_type() == at::kFloat)
      cpu::swiglu_backward(gate.data_ptr<float>(), up.data_ptr<float>(), dy.data_ptr<float>(),
                           gate.numel(), d_gate.data_ptr<float>(), d_up.data_ptr<float>());
    else
      cpu::swiglu_backward(bits(gate), bits(up), bits(dy), gate.numel(), bits(d_gate), bits(d_up));
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
