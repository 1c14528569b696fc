#include "model/recompute.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "lora/autograd_function.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;
using Segment = std::function<at::Tensor(const at::Tensor&)>;

// Carries the segment through the node's saved data.
struct SegmentHolder : torch::CustomClassHolder {
  explicit SegmentHolder(Segment s) : segment(std::move(s)) {}
  Segment segment;
};

struct RecomputeNode : lora::Function<RecomputeNode> {
  static Variable forward(AutogradContext* ctx, const Variable& input, const Variable& anchor,
                          Segment segment) {
    (void)anchor;
    ctx->save_for_backward({input});
    at::NoGradGuard no_grad;
    at::Tensor out = segment(input);
    ctx->saved_data["segment"] =
        c10::IValue::make_capsule(c10::make_intrusive<SegmentHolder>(std::move(segment)));
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto holder = ctx->saved_data["segment"].toCapsule();
    const auto& segment = static_cast<SegmentHolder&>(*holder).segment;
    const bool wanted = ctx->needs_input_grad(0);
    at::AutoGradMode with_grad(true);
    const at::Tensor input = ctx->get_saved_variables()[0].detach().requires_grad_(wanted);
    const at::Tensor out = segment(input);
    out.backward(gradients[0]);
    return {wanted ? input.grad() : Variable(), Variable(), Variable()};
  }
};

}  // namespace

at::Tensor recompute(const at::Tensor& input, const at::Tensor& anchor, Segment segment) {
  return RecomputeNode::apply(input, anchor, std::move(segment));
}

}  // namespace qlora::model
