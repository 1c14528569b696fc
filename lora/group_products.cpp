#include "lora/group_products.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/profile.h"
#include "lora/columns.h"
#include "lora/dropout.h"
#include "lora/group_low_rank.h"
#include "lora/low_rank.h"
#include "lora/magnitude.h"
#include "lora/stacked_weights.h"
#include "quant/products/product.h"

namespace qlora::lora {
namespace {

using variable_list = std::vector<at::Tensor>;

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

}  // namespace

void check_group_input(const LinearGroup& group, const at::Tensor& x,
                       const ForwardContext& context) {
  const std::vector<LoraLinear>& layers = group.layers();
  check(!layers.empty(), "LinearGroup: a group must have a layer to be called");
  check(context.workspace != nullptr, "LinearGroup: the context must have a workspace");
  for (const LoraLinear& layer : layers)
    check(layer.base != nullptr, "LinearGroup: {} must have its frozen weight, and has none yet",
          layer.name);
  check(x.dim() == 2 && x.size(1) == layers.front().in_features(),
        "LinearGroup: the input of {} must be [tokens, {}], found [{}]", layers.front().name,
        layers.front().in_features(), fmt::join(x.sizes(), ", "));
}

int64_t outputs_width(const LinearGroup& group) {
  int64_t width = 0;
  for (const LoraLinear& layer : group.layers()) width += layer.out_features();
  return width;
}

std::vector<at::Tensor> group_outputs(const LinearGroup& group, const GroupInput& input,
                                      const at::Tensor& residual, const ForwardContext& context,
                                      const at::Tensor& all, std::vector<at::Tensor>* scaled) {
  const at::Tensor &x = input.x, &h = input.h;
  std::vector<int64_t> widths;
  for (const LoraLinear& layer : group.layers()) widths.push_back(layer.out_features());
  Outputs to{.all = all, .y = columns_of(all, widths)};
  const bool sums = h.defined() || residual.defined() || context.rows_vary;
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

void group_gradients(const LinearGroup& group, const GroupInput& input,
                     const std::vector<at::Tensor>& scaled, const std::vector<at::Tensor>& dy,
                     at::Tensor dx, const ForwardContext& context) {
  const at::Tensor &x = input.x, &h = input.h;
  const variable_list inner = inner_gradients(group, dy, scaled);
  const at::Tensor g = h.defined() ? gradient_of_b(group, inner, h) : at::Tensor();
  // Before the products, as in the forward pass: their sum is rounded once.
  const bool adapted = dx.defined() && g.defined();
  const bool begun = adapted && !drops(any_adapter(group), context);
  const quant::ProductRoute& route = quant::product_route(
      product_facts(group.layers(), x, adapted || (dx.defined() && context.rows_vary)),
      quant::Pass::kBackward);
  if (route.sums) {
    const ProfileScope products("linear backward");
    summed_input_gradient(group.layers(), side_by_side(dy), begun ? g : at::Tensor(),
                          begun ? group.stacked_a().compute : at::Tensor(), dx, *context.workspace);
  } else {
    if (begun) low_rank_up(g, group.stacked_a().compute.t(), 1.0, false, dx);
    if (dx.defined() && route.run == quant::ProductRun::kJoined)
      add_joined_gradient(group, dy, begun, dx, *context.workspace);
    else
      add_weights_gradients(group, x, dy, inner, begun, dx, context);
  }
  if (g.defined()) gradient_of_a(group, x, g, dx, context);
}

void frozen_input_gradient(const LinearGroup& group, const std::vector<at::Tensor>& dy,
                           at::Tensor dx, const ForwardContext& context) {
  const quant::ProductRoute& route = quant::product_route(
      product_facts(group.layers(), dx, context.rows_vary), quant::Pass::kBackward);
  const ProfileScope scope("linear backward");
  if (route.sums)
    return summed_input_gradient(group.layers(), side_by_side(dy), at::Tensor(), at::Tensor(), dx,
                                 *context.workspace);
  if (route.run == quant::ProductRun::kJoined)
    return stacked_input_gradient(group.layers(), side_by_side(dy), false, dx, *context.workspace);
  for (size_t i = 0; i < dy.size(); ++i)
    group.layers()[i].base->input_gradient_into(dy[i].contiguous(), dx, i > 0, *context.workspace);
}

}  // namespace qlora::lora
