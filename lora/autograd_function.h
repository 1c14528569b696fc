// A node of autograd's graph with a forward and a backward of its own: torch::autograd::Function,
// compiled once in autograd_function.cpp. Its templates cost each file that names them eight
// seconds of the compiler. A node is written as one of torch's:
//
//   struct Square : Function<Square> {
//     static Variable forward(AutogradContext* ctx, const Variable& x);
//     static variable_list backward(AutogradContext* ctx, variable_list gradients);
//   };
//   y = Square::apply(x);
//
// forward runs without gradients and may return a tensor or several. backward gives a gradient for
// each argument of forward: an undefined one for those that are no tensors or are absent.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/flat_hash_map.h>

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace torch::autograd {
struct AutogradContext;
}

namespace qlora::lora {

using Variable = at::Tensor;
using variable_list = std::vector<at::Tensor>;

// What backward is to know of forward; torch's context behind it.
class AutogradContext {
 public:
  explicit AutogradContext(torch::autograd::AutogradContext& context);

  ska::flat_hash_map<std::string, c10::IValue>& saved_data;
  // Tensors of forward, checked on the way back for not having been changed since.
  void save_for_backward(variable_list tensors);
  variable_list get_saved_variables() const;
  // Whether backward gets zeros for an output without gradient (yes), or an undefined tensor.
  void set_materialize_grads(bool value);
  // By the position among the tensors that forward was given.
  bool needs_input_grad(size_t index) const;

 private:
  torch::autograd::AutogradContext& context_;
};

using RunForward = std::function<variable_list(AutogradContext*)>;
using RunBackward = variable_list (*)(AutogradContext*, variable_list);

// The tensors among forward's arguments, and at which of them they stand.
struct FunctionInputs {
  variable_list tensors;
  std::vector<bool> is_tensor;

  void note(const at::Tensor& argument);
  void note(const std::optional<at::Tensor>& argument);
  template <typename T>
  void note(const T& argument) {
    (void)argument;
    is_tensor.push_back(false);
  }
};

variable_list apply_function(const FunctionInputs& inputs, const RunForward& forward,
                             RunBackward backward);

template <typename Node>
struct Function {
  template <typename... Arguments>
  static auto apply(Arguments&&... arguments) {
    FunctionInputs inputs;
    (inputs.note(arguments), ...);
    using Result = decltype(Node::forward(nullptr, std::forward<Arguments>(arguments)...));
    const auto forward = [&](AutogradContext* ctx) -> variable_list {
      return {Node::forward(ctx, std::forward<Arguments>(arguments)...)};
    };
    variable_list outputs = apply_function(inputs, forward, &Node::backward);
    if constexpr (std::is_same_v<Result, variable_list>)
      return outputs;
    else
      return outputs[0];
  }
};

}  // namespace qlora::lora
