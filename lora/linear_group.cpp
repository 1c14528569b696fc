#include "lora/linear_group.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "lora/columns.h"
#include "lora/dropout.h"
#include "lora/group_low_rank.h"
#include "lora/low_rank.h"
#include "lora/magnitude.h"
#include "lora/stacked_weights.h"
#include "quant/products/product.h"

namespace qlora::lora {
namespace {

// y (+)= x Wᵀ with the frozen weight, or with what is trained in its place.
void weight_product_into(const LoraLinear& layer, const at::Tensor& x, bool accumulate,
                         at::Tensor& y, const ForwardContext& context) {
  const bool trained = context.adapters_enabled;
  if (layer.trained_weight && trained) {
    quant::multiply_into(x, layer.trained_weight->compute.t(), accumulate, y);
    return;
  }
  layer.base->forward_into(x, y, accumulate, *context.workspace);
  if (layer.trained_rows && trained)
    y.index_copy_(1, layer.trained_rows->index,
                  quant::product(x, layer.trained_rows->rows.compute.t()));
}

// gradient += dyᵀ x.
void add_outer(const at::Tensor& gradient, const at::Tensor& dy, const at::Tensor& x) {
  quant::multiply_into(dy.t(), x, true, gradient);
}

// dx (+)= dy W, and on the way the gradient of a weight, or of rows, that is trained.
void weight_gradients(const LoraLinear& layer, const at::Tensor& x, const at::Tensor& dy,
                      at::Tensor& dx, bool accumulate, const ForwardContext& context) {
  if (const TrainedTensor* trained = layer.trained_weight.get()) {
    add_outer(trained->gradient, dy, x);
    if (dx.defined()) quant::multiply_into(dy, trained->compute, accumulate, dx);
    return;
  }
  if (!layer.trained_rows) {
    if (dx.defined()) layer.base->input_gradient_into(dy, dx, accumulate, *context.workspace);
    return;
  }
  const TrainedRows& trained = *layer.trained_rows;
  const at::Tensor of_rows = dy.index_select(1, trained.index);
  add_outer(trained.rows.gradient, of_rows, x);
  if (!dx.defined()) return;
  // The frozen rows that were replaced have no part in y.
  layer.base->input_gradient_into(dy.index_fill(1, trained.index, 0), dx, accumulate,
                                  *context.workspace);
  quant::multiply_into(of_rows, trained.rows.compute, true, dx);
}

// Whether all that is added to a layer's product may be there before it: the sum is then rounded
// once. A small adapter would lose most of itself in a second rounding.
bool adds_before_product(const LoraLinear& layer) {
  return !layer.trained_rows && !(layer.adapter && layer.adapter->is_dora());
}

// y (+)= bias, if there is one; whether y holds something then.
bool add_bias(const LoraLinear& layer, bool accumulate, at::Tensor& y,
              const ForwardContext& context) {
  const at::Tensor& bias = layer.active_bias(context.adapters_enabled);
  if (!bias.defined()) return accumulate;
  accumulate ? y.add_(bias) : y.copy_(bias.expand_as(y));
  return true;
}

// The same with scaling h Bᵀ, as far as there is an adapter.
bool add_bias_and_adapter(const LoraLinear& layer, const at::Tensor& h, bool accumulate,
                          at::Tensor& y, const ForwardContext& context) {
  accumulate = add_bias(layer, accumulate, y, context);
  if (!h.defined() || layer.adapter->is_dora()) return accumulate;
  low_rank_up(h, layer.adapter->b_compute, layer.adapter->scaling, accumulate, y);
  return true;
}

// The outputs y_i of a group.
struct Outputs {
  at::Tensor all;  // side by side
  variable_list y = {};
  std::vector<bool> begun = {};  // whether y_i holds something to which its product is added
};

// The layers' products, by the route that the group takes.
void weight_products_into(const LinearGroup& group, quant::ProductRun run, const at::Tensor& x,
                          Outputs& to, const ForwardContext& context) {
  const ProfileScope scope("linear");
  const bool at_once = run == quant::ProductRun::kFewRows || run == quant::ProductRun::kJoined;
  if (!at_once) {
    for (size_t i = 0; i < to.y.size(); ++i)
      weight_product_into(group.layers()[i], x, to.begun[i], to.y[i], context);
    return;
  }
  const bool any = std::ranges::find(to.begun, true) != to.begun.end();
  for (size_t i = 0; any && i < to.y.size(); ++i)
    if (!to.begun[i]) to.y[i].zero_();
  if (run == quant::ProductRun::kFewRows)
    few_rows_forward_into(group.layers(), x, any, to.all);
  else
    stacked_forward_into(group.layers(), x, any, to.all, *context.workspace);
}

// Frozen products plus scaling * H_i B_iᵀ. `h` is undefined where adapters are off. What DoRA's
// magnitudes scaled goes to `scaled` where it is wanted, one a layer with magnitude. With a
// residual, its sum with the product.
variable_list outputs(const LinearGroup& group, const at::Tensor& x, const at::Tensor& h,
                      const at::Tensor& residual, const ForwardContext& context,
                      variable_list* scaled = nullptr) {
  std::vector<int64_t> widths;
  for (const LoraLinear& layer : group.layers()) widths.push_back(layer.out_features());
  const at::Tensor all =
      at::empty({x.size(0), std::accumulate(widths.begin(), widths.end(), int64_t{0})},
                residual.defined() ? residual.options() : x.options());
  Outputs to{.all = all, .y = columns_of(all, widths)};
  const bool sums = h.defined() || residual.defined();
  const quant::ProductRoute& route =
      quant::product_route(product_facts(group.layers(), x, sums), quant::Pass::kForward);
  variable_list parts_of_h;
  int64_t column = 0;
  for (size_t i = 0; i < to.y.size(); ++i) {
    const LoraLinear& layer = group.layers()[i];
    const bool adapted = layer.adapter && h.defined();
    parts_of_h.push_back(adapted ? h.narrow(1, column, layer.adapter->rank) : at::Tensor());
    if (adapted) column += layer.adapter->rank;
    to.begun.push_back(adds_before_product(layer) &&
                       (route.sums
                            ? add_bias(layer, false, to.y[i], context)
                            : add_bias_and_adapter(layer, parts_of_h[i], false, to.y[i], context)));
  }
  if (route.sums) {
    const ProfileScope scope("linear");
    const auto targets = sum_targets(group.layers(), parts_of_h, to.begun, to.y, residual);
    summed_forward_into(group.layers(), route.run, x, targets, *context.workspace);
    return std::move(to.y);
  }
  weight_products_into(group, route.run, x, to, context);
  for (size_t i = 0; i < to.y.size(); ++i) {
    const LoraLinear& layer = group.layers()[i];
    if (adds_before_product(layer)) continue;
    if (parts_of_h[i].defined() && layer.adapter->is_dora()) {
      const at::Tensor z = apply_magnitude(layer, x, parts_of_h[i], to.y[i], context);
      if (scaled != nullptr) scaled->push_back(z);
    }
    add_bias_and_adapter(layer, parts_of_h[i], true, to.y[i], context);
  }
  return std::move(to.y);
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

// The gradients towards what the frozen and low-rank products of each layer gave: dy itself, or
// through DoRA's factor, whose own gradient is added on the way.
variable_list inner_gradients(const LinearGroup& group, const variable_list& dy,
                              const variable_list& scaled) {
  variable_list inner = dy;
  size_t next = 0;
  for (size_t i = 0; i < group.layers().size(); ++i) {
    const LoraLinear& layer = group.layers()[i];
    if (layer.trained_bias) layer.trained_bias->gradient.add_(dy[i].sum(0, false, at::kFloat));
    if (!layer.adapter || !layer.adapter->is_dora()) continue;
    inner[i] = gradient_through_magnitude(layer, dy[i], scaled[next++]);
  }
  return inner;
}

at::Tensor side_by_side(const variable_list& parts) {
  const at::Tensor joined = joined_columns(parts);
  return joined.defined() ? joined : at::cat(parts, 1);
}

// dx (+)= the share of the weights' products in the gradient towards x, layer by layer; nothing if
// dx is undefined. Trained weights get their own gradient in any case.
void add_weights_gradients(const LinearGroup& group, const at::Tensor& x, const variable_list& dy,
                           const variable_list& inner, bool accumulate, at::Tensor& dx,
                           const ForwardContext& context) {
  const ProfileScope scope("linear backward");
  for (size_t i = 0; i < dy.size(); ++i) {
    const LoraLinear& layer = group.layers()[i];
    const bool split = layer.adapter && layer.adapter->is_dora() && drops(*layer.adapter, context);
    weight_gradients(layer, x, split ? dy[i] : inner[i], dx, accumulate || i > 0, context);
    if (!split || !dx.defined()) continue;
    at::Tensor towards_dropped = at::empty_like(x);
    layer.base->input_gradient_into(inner[i] - dy[i], towards_dropped, false, *context.workspace);
    dx.add_(dropped(towards_dropped, *layer.adapter, context));
  }
}

// The same at once, where nothing but frozen weights has a part in it.
void add_joined_gradient(const LinearGroup& group, const variable_list& dy, bool accumulate,
                         at::Tensor& dx, quant::Workspace& workspace) {
  const ProfileScope scope("linear backward");
  stacked_input_gradient(group.layers(), side_by_side(dy), accumulate, dx, workspace);
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
                               : outputs(*group, x, h, onto, *context, &saved);
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
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group);
    ctx->saved_data["training"] = context->training;
    ctx->saved_data["key"] = static_cast<int64_t>(context->dropout_key);
    ctx->saved_data["workspace"] = reinterpret_cast<int64_t>(context->workspace);
    return result;
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    const ProfileScope scope("lora backward");
    const auto saved = ctx->get_saved_variables();
    const auto inputs = saved.begin() + ctx->saved_data["inputs_at"].toInt();
    const at::Tensor x = input_of(ctx, {inputs, saved.end()}), &h = saved[0];
    const auto* group = reinterpret_cast<const LinearGroup*>(ctx->saved_data["group"].toInt());
    ForwardContext context;
    context.training = ctx->saved_data["training"].toBool();
    context.dropout_key = static_cast<uint64_t>(ctx->saved_data["key"].toInt());
    context.workspace = reinterpret_cast<quant::Workspace*>(ctx->saved_data["workspace"].toInt());
    const at::Tensor d_residual = take_residual_gradient(ctx, dy);
    for (at::Tensor& d : dy)
      if (d.stride(1) != 1) d = d.contiguous();

    const variable_list inner = inner_gradients(*group, dy, {saved.begin() + 1, inputs});
    at::Tensor dx = ctx->needs_input_grad(0) ? at::empty_like(x) : at::Tensor();
    const at::Tensor g = h.defined() ? gradient_of_b(*group, inner, h) : at::Tensor();
    // Before the products, as in the forward pass: their sum is rounded once.
    const bool adapted = dx.defined() && g.defined();
    const bool begun = adapted && !drops(any_adapter(*group), context);
    const quant::ProductRoute& route =
        quant::product_route(product_facts(group->layers(), x, adapted), quant::Pass::kBackward);
    if (route.sums) {
      const ProfileScope products("linear backward");
      summed_input_gradient(group->layers(), side_by_side(dy), begun ? g : at::Tensor(),
                            group->stacked_a().compute, dx, *context.workspace);
    } else {
      if (begun) low_rank_up(g, group->stacked_a().compute.t(), 1.0, false, dx);
      if (dx.defined() && route.run == quant::ProductRun::kJoined)
        add_joined_gradient(*group, dy, begun, dx, *context.workspace);
      else
        add_weights_gradients(*group, x, dy, inner, begun, dx, context);
    }
    if (g.defined()) gradient_of_a(*group, x, g, dx, context);
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
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group);
    ctx->saved_data["workspace"] = reinterpret_cast<int64_t>(context->workspace);
    note_residual(ctx, x, residual);
    const at::Tensor onto = residual.value_or(at::Tensor());
    return context->output_unused ? unspecified_outputs(*group, x, onto)
                                  : outputs(*group, x, at::Tensor(), onto, *context);
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    const auto* group = reinterpret_cast<const LinearGroup*>(ctx->saved_data["group"].toInt());
    auto& workspace = *reinterpret_cast<quant::Workspace*>(ctx->saved_data["workspace"].toInt());
    const at::Tensor d_residual = take_residual_gradient(ctx, dy);
    at::Tensor dx = at::empty({dy[0].size(0), group->layers()[0].in_features()}, dy[0].options());
    const quant::ProductRoute& route =
        quant::product_route(product_facts(group->layers(), dx, false), quant::Pass::kBackward);
    const ProfileScope scope("linear backward");
    if (route.run == quant::ProductRun::kJoined) {
      stacked_input_gradient(group->layers(), side_by_side(dy), false, dx, workspace);
    } else {
      for (size_t i = 0; i < dy.size(); ++i)
        group->layers()[i].base->input_gradient_into(dy[i].contiguous(), dx, i > 0, workspace);
    }
    return {dx, d_residual, Variable(), Variable()};
  }
};

void check_call(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                const ForwardContext& context) {
  check(!layers.empty(), "LinearGroup: a group must have a layer to be called");
  check(context.workspace != nullptr, "LinearGroup: the context must have a workspace");
  for (const LoraLinear& layer : layers)
    check(layer.base != nullptr, "LinearGroup: {} must have its frozen weight, and has none yet",
          layer.name);
  check(x.dim() == 2 && x.size(1) == layers.front().in_features(),
        "LinearGroup: the input of {} must be [tokens, {}], found [{}]", layers.front().name,
        layers.front().in_features(), fmt::join(x.sizes(), ", "));
}

}  // namespace

bool LinearGroup::sums_onto(const at::Tensor& x, const ForwardContext& context) const {
  return layers_.size() == 1 && !layers_.front().active_bias(context.adapters_enabled).defined() &&
         quant::product_route(product_facts(layers_, x, true), quant::Pass::kForward).sums;
}

std::vector<at::Tensor> LinearGroup::forward_onto(const at::Tensor& residual, const at::Tensor& x,
                                                  const ForwardContext& context,
                                                  const RemadeInput* remade) const {
  check_call(layers_, x, context);
  check(!residual.defined() || sums_onto(x, context), "LinearGroup: no sum onto a residual here");
  if (context.observer != nullptr) (*context.observer)(*this, x);
  const bool adapted = has_adapters() && context.adapters_enabled;
  if (!at::GradMode::is_enabled())
    return outputs(*this, x, adapted ? low_rank_inputs(*this, x, context) : at::Tensor(), residual,
                   context);
  const auto onto = residual.defined() ? std::optional<Variable>(residual) : std::nullopt;
  if (!anchor_.defined() || !context.adapters_enabled)
    return FrozenGroupNode::apply(x, onto, this, &context);
  return GroupNode::apply(x, anchor_, onto, this, &context, remade);
}

}  // namespace qlora::lora
