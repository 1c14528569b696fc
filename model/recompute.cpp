#include "model/recompute.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>

#include "lora/autograd_function.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;
using Segment = std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>;

// Carries the segment through the node's saved data.
struct SegmentHolder : torch::CustomClassHolder {
  explicit SegmentHolder(Segment s) : segment(std::move(s)) {}
  Segment segment;
};

struct RecomputeNode : lora::Function<RecomputeNode> {
  static Variable forward(AutogradContext* ctx, const Variable& input,
                          const std::optional<Variable>& encoded, const Variable& anchor,
                          Segment segment) {
    (void)anchor;
    ctx->save_for_backward({input, encoded.value_or(Variable())});
    at::NoGradGuard no_grad;
    at::Tensor out = segment(input, encoded.value_or(Variable()));
    ctx->saved_data["segment"] =
        c10::IValue::make_capsule(c10::make_intrusive<SegmentHolder>(std::move(segment)));
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto holder = ctx->saved_data["segment"].toCapsule();
    const auto& segment = static_cast<SegmentHolder&>(*holder).segment;
    at::AutoGradMode with_grad(true);
    const variable_list saved = ctx->get_saved_variables();
    const auto leaf_of = [&](size_t index) {
      return saved[index].detach().requires_grad_(ctx->needs_input_grad(index));
    };
    const auto gradient_of = [](const at::Tensor& leaf) {
      return leaf.defined() && leaf.requires_grad() ? leaf.grad() : Variable();
    };
    const at::Tensor input = leaf_of(0);
    const at::Tensor encoded = saved[1].defined() ? leaf_of(1) : Variable();
    const at::Tensor out = segment(input, encoded);
    out.backward(gradients[0]);
    return {gradient_of(input), gradient_of(encoded), Variable(), Variable()};
  }
};

}  // namespace

at::Tensor recompute(const at::Tensor& input, const at::Tensor& anchor,
                     std::function<at::Tensor(const at::Tensor&)> segment) {
  return recompute(input, at::Tensor(), anchor,
                   [segment = std::move(segment)](const at::Tensor& x, const at::Tensor&) {
                     return segment(x);
                   });
}

at::Tensor recompute(const at::Tensor& input, const at::Tensor& encoded, const at::Tensor& anchor,
                     std::function<at::Tensor(const at::Tensor&, const at::Tensor&)> segment) {
  const auto beside = encoded.defined() ? std::optional<Variable>(encoded) : std::nullopt;
  return RecomputeNode::apply(input, beside, anchor, std::move(segment));
}

}  // namespace qlora::model
