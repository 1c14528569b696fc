#include "model/swiglu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "base/profile.h"
#include "lora/columns.h"
#include "model/element_pointer.h"
#include "model/swiglu_kernels.h"

namespace qlora::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

template <typename T>
cpu::StridedRows<T> rows_of(const at::Tensor& t) {
  return {elements<std::remove_const_t<T>>(t), t.stride(0)};
}

at::Tensor forward_cpu(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor out = at::empty(gate.sizes(), gate.options());
  with_elements(out, [&](auto* y) {
    using T = ElementOf<decltype(y)>;
    cpu::swiglu(rows_of<const T>(gate), rows_of<const T>(up), gate.size(0), gate.size(1), y);
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
    // Side by side, as one product with the two weights' rows takes them.
    const at::Tensor both = at::empty({gate.size(0), 2 * gate.size(1)}, gate.options());
    const auto d = lora::columns_of(both, {gate.size(1), gate.size(1)});
    with_elements(dy, [&](auto* elements_of_dy) {
      using T = ElementOf<decltype(elements_of_dy)>;
      cpu::swiglu_backward(rows_of<const T>(gate), rows_of<const T>(up), rows_of<const T>(dy),
                           gate.size(0), gate.size(1), rows_of<T>(d[0]), rows_of<T>(d[1]));
    });
    return {d[0], d[1]};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  check(gate.sizes() == up.sizes() && gate.stride(1) == 1 && up.stride(1) == 1,
        "swiglu: gate and up must be of one shape and have contiguous rows");
  if (!gate.is_cpu())
    return (at::silu(gate.to(at::kFloat)) * up.to(at::kFloat)).to(gate.scalar_type());
  if (!at::GradMode::is_enabled()) return forward_cpu(gate, up);
  return SwigluNode::apply(gate, up);
}

}  // namespace qlora::model
