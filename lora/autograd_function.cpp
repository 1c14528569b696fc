#include "lora/autograd_function.h"

#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "base/error.h"

namespace qlora::lora {
namespace {

constexpr const char* kCall = "qlora call";

// What backward needs, in the node's saved data.
struct Call : torch::CustomClassHolder {
  Call(std::vector<bool> tensors, RunBackward function)
      : is_tensor(std::move(tensors)), backward(function) {}
  std::vector<bool> is_tensor;
  RunBackward backward;
};

struct CallNode : torch::autograd::Function<CallNode> {
  static variable_list forward(torch::autograd::AutogradContext* ctx, at::TensorList tensors,
                               const std::vector<bool>& is_tensor, const RunForward& forward,
                               RunBackward backward) {
    (void)tensors;  // the same as forward's own arguments: torch links the node to them
    ctx->saved_data[kCall] =
        c10::IValue::make_capsule(c10::make_intrusive<Call>(is_tensor, backward));
    AutogradContext context(*ctx);
    return forward(&context);
  }

  static variable_list backward(torch::autograd::AutogradContext* ctx, variable_list gradients) {
    const auto capsule = ctx->saved_data[kCall].toCapsule();
    const auto& call = static_cast<Call&>(*capsule);
    AutogradContext context(*ctx);
    const variable_list all = call.backward(&context, std::move(gradients));
    check(all.size() == call.is_tensor.size(),
          "a node's backward must give a gradient for each of the {} arguments, found {}",
          call.is_tensor.size(), all.size());
    variable_list of_tensors;
    for (size_t i = 0; i < all.size(); ++i) {
      if (call.is_tensor[i]) {
        of_tensors.push_back(all[i]);
      } else {
        check(!all[i].defined(), "a node's backward gives a gradient for argument {}, no tensor",
              i);
      }
    }
    of_tensors.resize(of_tensors.size() + 3);  // none for the other arguments of this forward
    return of_tensors;
  }
};

}  // namespace

AutogradContext::AutogradContext(torch::autograd::AutogradContext& context)
    : saved_data(context.saved_data), context_(context) {}

void AutogradContext::save_for_backward(variable_list tensors) {
  context_.save_for_backward(std::move(tensors));
}
variable_list AutogradContext::get_saved_variables() const {
  return context_.get_saved_variables();
}
void AutogradContext::set_materialize_grads(bool value) { context_.set_materialize_grads(value); }
bool AutogradContext::needs_input_grad(size_t index) const {
  return context_.needs_input_grad(index);
}

void FunctionInputs::note(const at::Tensor& argument) {
  is_tensor.push_back(true);
  tensors.push_back(argument);
}

void FunctionInputs::note(const std::optional<at::Tensor>& argument) {
  const bool present = argument && argument->defined();
  is_tensor.push_back(present);
  if (present) tensors.push_back(*argument);
}

variable_list apply_function(const FunctionInputs& inputs, const RunForward& forward,
                             RunBackward backward) {
  return CallNode::apply(at::TensorList(inputs.tensors), inputs.is_tensor, forward, backward);
}

}  // namespace qlora::lora
