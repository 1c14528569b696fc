// The linear layers that share one input (q,k,v; gate,up; o; down): the unit of a call. One
// autograd node runs the frozen products, adds the adapters' low-rank products, and in the backward
// pass
//
//   dx    = Σ_i dy_i W_i + (scaling_i dy_i B_i) A_i   through dropout's mask where there is one
//   dA_i += (scaling_i dy_i B_i)ᵀ x
//   dB_i += scaling_i dy_iᵀ (x A_iᵀ)
//
// writes the adapters' gradients straight into their fp32 buffers and returns dx alone. The base
// gets no gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "lora/forward_context.h"
#include "lora/lora_linear.h"

namespace qlora::lora {

// The A matrices of a group's adapters stacked, so that x meets all of them in one product.
struct StackedA {
  at::Tensor compute;   // [sum of ranks, in] in the compute dtype
  at::Tensor gradient;  // the same rows of the flat fp32 gradient buffer
};

// How an input is made again, so that the backward pass need not keep it: cheaply, from tensors
// that are kept in any case, with the same bits. `from` takes no part in the graph.
struct RemadeInput {
  std::vector<at::Tensor> from;
  std::function<at::Tensor(const std::vector<at::Tensor>&)> make;
};

// A forward pass keeps pointers to the group and to context.workspace until its backward pass is
// done: neither may move or end before. One group, and one workspace, at a time on one thread.
class LinearGroup {
 public:
  LinearGroup() = default;
  explicit LinearGroup(std::vector<LoraLinear> layers) : layers_(std::move(layers)) {}

  // x [tokens, in] in the compute dtype, rows contiguous -> one [tokens, out_i] per layer, in the
  // layers' order. With `remade`, x itself is not kept for the backward pass. Error if the context
  // has no workspace, a layer no weight, or x another shape.
  std::vector<at::Tensor> forward(const at::Tensor& x, const ForwardContext& context,
                                  const RemadeInput* remade = nullptr) const {
    return forward_onto(at::Tensor(), x, context, remade);
  }
  // residual + y, both fp32, for the one y of the group: nothing is rounded to the compute dtype in
  // between. Where sums_onto() is false, forward() and a sum have to do.
  at::Tensor forward_onto_residual(const at::Tensor& residual, const at::Tensor& x,
                                   const ForwardContext& context,
                                   const RemadeInput* remade = nullptr) const {
    return forward_onto(residual, x, context, remade)[0];
  }
  bool sums_onto(const at::Tensor& x, const ForwardContext& context) const;

  std::vector<LoraLinear>& layers() { return layers_; }
  const std::vector<LoraLinear>& layers() const { return layers_; }

  // Set by AdapterSet::place_factors() once the slots are filled.
  void set_stacked_a(StackedA stacked) { stacked_a_ = std::move(stacked); }
  const StackedA& stacked_a() const { return stacked_a_; }
  bool has_adapters() const { return stacked_a_.compute.defined(); }
  // A leaf that makes the group's autograd node part of the graph where x needs no gradient; its
  // .grad is never used. Undefined if nothing in the group is trained.
  const at::Tensor& anchor() const { return anchor_; }
  void set_anchor(at::Tensor anchor) { anchor_ = std::move(anchor); }

 private:
  std::vector<at::Tensor> forward_onto(const at::Tensor& residual, const at::Tensor& x,
                                       const ForwardContext& context,
                                       const RemadeInput* remade) const;

  std::vector<LoraLinear> layers_;
  StackedA stacked_a_;
  at::Tensor anchor_;
};

}  // namespace qlora::lora
