#include "lora/linear_group.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "lora/group_low_rank.h"
#include "lora/group_products.h"
#include "lora/stacked_weights.h"

namespace qlora::lora {
namespace {

// The outputs of a group, or with a residual its sum with the one (group_outputs()).
variable_list outputs(const LinearGroup& group, const GroupInput& input, const at::Tensor& residual,
                      const ForwardContext& context, variable_list* scaled = nullptr) {
  const at::Tensor all = at::empty({input.x.size(0), outputs_width(group)},
                                   residual.defined() ? residual.options() : input.x.options());
  return group_outputs(group, input, residual, context, all, scaled);
}

// Whether the backward pass needs anything that outputs() makes.
bool keeps_of_outputs(const LinearGroup& group) {
  return std::ranges::any_of(group.layers(), [](const LoraLinear& layer) {
    return layer.adapter && layer.adapter->is_dora();
  });
}

variable_list unspecified_outputs(const LinearGroup& group, const at::Tensor& x,
                                  const at::Tensor& residual) {
  if (residual.defined()) return {at::empty_like(residual)};
  variable_list result;
  for (const LoraLinear& layer : group.layers())
    result.push_back(at::empty({x.size(0), layer.out_features()}, x.options()));
  return result;
}

// Carries the maker of an input through the node's saved data.
struct InputMaker : torch::CustomClassHolder {
  explicit InputMaker(std::function<at::Tensor(const std::vector<at::Tensor>&)> f)
      : make(std::move(f)) {}
  std::function<at::Tensor(const std::vector<at::Tensor>&)> make;
};

// Of a sum with a residual, whose gradient is that of the sum; the others are made of it in the
// compute dtype.
constexpr const char* kComputeOfSum = "compute_of_sum";

void note_residual(AutogradContext* ctx, const at::Tensor& x,
                   const std::optional<Variable>& residual) {
  if (residual) ctx->saved_data[kComputeOfSum] = static_cast<int64_t>(x.scalar_type());
}

at::Tensor take_residual_gradient(AutogradContext* ctx, variable_list& dy) {
  const auto compute = ctx->saved_data.find(kComputeOfSum);
  if (compute == ctx->saved_data.end()) return at::Tensor();
  const at::Tensor wide = dy[0];
  dy[0] = wide.to(static_cast<at::ScalarType>(compute->second.toInt()));
  return wide;
}

// What the backward pass of a node knows of its forward pass.
void note_pass(AutogradContext* ctx, const LinearGroup* group, const ForwardContext& context) {
  ctx->saved_data["group"] = reinterpret_cast<int64_t>(group);
  ctx->saved_data["training"] = context.training;
  ctx->saved_data["key"] = static_cast<int64_t>(context.dropout_key);
  ctx->saved_data["rows_vary"] = context.rows_vary;
  ctx->saved_data["workspace"] = reinterpret_cast<int64_t>(context.workspace);
}
const LinearGroup& group_of(AutogradContext* ctx) {
  return *reinterpret_cast<const LinearGroup*>(ctx->saved_data["group"].toInt());
}
ForwardContext context_of(AutogradContext* ctx) {
  ForwardContext context;
  context.training = ctx->saved_data["training"].toBool();
  context.dropout_key = static_cast<uint64_t>(ctx->saved_data["key"].toInt());
  context.rows_vary = ctx->saved_data["rows_vary"].toBool();
  context.workspace = reinterpret_cast<quant::Workspace*>(ctx->saved_data["workspace"].toInt());
  return context;
}

struct GroupNode : Function<GroupNode> {
  // `anchor`: LinearGroup::anchor().
  static variable_list forward(AutogradContext* ctx, const Variable& x, const Variable& anchor,
                               const std::optional<Variable>& residual, const LinearGroup* group,
                               const ForwardContext* context, const RemadeInput* remade) {
    const ProfileScope scope("lora");
    (void)anchor;
    const bool adapted = group->has_adapters() && context->adapters_enabled;
    const at::Tensor h = adapted ? low_rank_inputs(*group, x, *context) : at::Tensor();
    // h, what DoRA scaled, and x or what it is made of.
    variable_list saved{h};
    const at::Tensor onto = residual.value_or(at::Tensor());
    variable_list result = context->output_unused && !keeps_of_outputs(*group)
                               ? unspecified_outputs(*group, x, onto)
                               : outputs(*group, {x, h}, onto, *context, &saved);
    note_residual(ctx, x, residual);
    ctx->saved_data["inputs_at"] = static_cast<int64_t>(saved.size());
    if (remade != nullptr) {
      saved.insert(saved.end(), remade->from.begin(), remade->from.end());
      ctx->saved_data["maker"] =
          c10::IValue::make_capsule(c10::make_intrusive<InputMaker>(remade->make));
    } else {
      saved.push_back(x);
    }
    ctx->save_for_backward(saved);
    note_pass(ctx, group, *context);
    return result;
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    const ProfileScope scope("lora backward");
    const auto saved = ctx->get_saved_variables();
    const auto inputs = saved.begin() + ctx->saved_data["inputs_at"].toInt();
    const at::Tensor x = input_of(ctx, {inputs, saved.end()}), &h = saved[0];
    const at::Tensor d_residual = take_residual_gradient(ctx, dy);
    for (at::Tensor& d : dy)
      if (d.stride(1) != 1) d = d.contiguous();

    const at::Tensor dx = ctx->needs_input_grad(0) ? at::empty_like(x) : at::Tensor();
    group_gradients(group_of(ctx), {x, h}, {saved.begin() + 1, inputs}, dy, dx, context_of(ctx));
    return {dx, Variable(), d_residual, Variable(), Variable(), Variable()};
  }

  static at::Tensor input_of(AutogradContext* ctx, const variable_list& kept) {
    const auto maker = ctx->saved_data.find("maker");
    if (maker == ctx->saved_data.end()) return kept.front();
    at::NoGradGuard no_grad;
    return static_cast<InputMaker&>(*maker->second.toCapsule()).make(kept);
  }
};

// A group without anything to train still has to carry the gradient to the layers below it.
struct FrozenGroupNode : Function<FrozenGroupNode> {
  static variable_list forward(AutogradContext* ctx, const Variable& x,
                               const std::optional<Variable>& residual, const LinearGroup* group,
                               const ForwardContext* context) {
    note_pass(ctx, group, *context);
    note_residual(ctx, x, residual);
    const at::Tensor onto = residual.value_or(at::Tensor());
    return context->output_unused ? unspecified_outputs(*group, x, onto)
                                  : outputs(*group, {x, {}}, onto, *context);
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    const LinearGroup& group = group_of(ctx);
    const at::Tensor d_residual = take_residual_gradient(ctx, dy);
    const at::Tensor dx =
        at::empty({dy[0].size(0), group.layers()[0].in_features()}, dy[0].options());
    frozen_input_gradient(group, dy, dx, context_of(ctx));
    return {dx, d_residual, Variable(), Variable()};
  }
};

}  // namespace

bool LinearGroup::sums_onto(const at::Tensor& x, const ForwardContext& context) const {
  return layers_.size() == 1 && !layers_.front().active_bias(context.adapters_enabled).defined() &&
         quant::product_route(product_facts(layers_, x, true), quant::Pass::kForward).sums;
}

std::vector<at::Tensor> LinearGroup::forward_onto(const at::Tensor& residual, const at::Tensor& x,
                                                  const ForwardContext& context,
                                                  const RemadeInput* remade) const {
  check_group_input(*this, x, context);
  check(!residual.defined() || sums_onto(x, context), "LinearGroup: no sum onto a residual here");
  if (context.observer != nullptr) (*context.observer)(*this, x);
  const bool adapted = has_adapters() && context.adapters_enabled;
  if (!at::GradMode::is_enabled())
    return outputs(*this, {x, adapted ? low_rank_inputs(*this, x, context) : at::Tensor()},
                   residual, context);
  const auto onto = residual.defined() ? std::optional<Variable>(residual) : std::nullopt;
  if (!anchor_.defined() || !context.adapters_enabled)
    return FrozenGroupNode::apply(x, onto, this, &context);
  return GroupNode::apply(x, anchor_, onto, this, &context, remade);
}

}  // namespace qlora::lora
