#include "lora/linear_group.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "base/seed.h"
#include "lora/dropout.h"

namespace qlora::lora {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

uint64_t mask_key(const Adapter& adapter, const ForwardContext& context) {
  return random_key(adapter.dropout_key, context.dropout_key);
}

bool drops(const Adapter& adapter, const ForwardContext& context) {
  return context.training && adapter.dropout > 0.0;
}

// The first adapter speaks for the group: rank patterns differ between modules, dropout never does.
const Adapter& any_adapter(const LinearGroup& group) {
  for (const LoraLinear& layer : group.layers())
    if (layer.adapter) return *layer.adapter;
  throw qlora::Error("LinearGroup: no adapter in the group");
}

// H = dropout(x) Aᵀ of all adapters side by side: [tokens, sum of ranks].
at::Tensor low_rank_inputs(const LinearGroup& group, const at::Tensor& x,
                           const ForwardContext& context) {
  if (!drops(any_adapter(group), context)) return at::mm(x, group.stacked_a().compute.t());
  std::vector<at::Tensor> parts;  // each module drops other inputs, as PEFT's modules do
  for (const LoraLinear& layer : group.layers())
    if (layer.adapter)
      parts.push_back(at::mm(dropout(x, layer.adapter->dropout, mask_key(*layer.adapter, context)),
                             layer.adapter->a_compute.t()));
  return at::cat(parts, 1);
}

// Frozen products plus scaling * H_i B_iᵀ. `h` is undefined where adapters are off.
variable_list outputs(const LinearGroup& group, const at::Tensor& x, const at::Tensor& h,
                      const ForwardContext& context) {
  variable_list result;
  int64_t column = 0;
  for (const LoraLinear& layer : group.layers()) {
    at::Tensor y = layer.base->forward(x, *context.workspace);
    if (layer.bias.defined()) y.add_(layer.bias);
    if (layer.adapter && h.defined()) {
      const Adapter& adapter = *layer.adapter;
      y.addmm_(h.narrow(1, column, adapter.rank), adapter.b_compute.t(), 1.0, adapter.scaling);
      column += adapter.rank;
    }
    result.push_back(std::move(y));
  }
  return result;
}

// G_i = scaling dy_i B_i side by side, and dB_i += scaling dy_iᵀ H_i on the way.
at::Tensor low_rank_gradients(const LinearGroup& group, const variable_list& dy,
                              const at::Tensor& h) {
  std::vector<at::Tensor> parts;
  int64_t column = 0;
  for (size_t i = 0; i < group.layers().size(); ++i) {
    const auto& adapter = group.layers()[i].adapter;
    if (!adapter) continue;
    parts.push_back(at::mm(dy[i], adapter->b_compute).mul_(adapter->scaling));
    adapter->grad_b.add_(at::mm(dy[i].t(), h.narrow(1, column, adapter->rank)), adapter->scaling);
    column += adapter->rank;
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

// dA += Gᵀ x and dx += G A, through each module's mask where there is dropout.
void add_low_rank_input_gradient(const LinearGroup& group, const at::Tensor& x, const at::Tensor& g,
                                 at::Tensor& dx, const ForwardContext& context) {
  if (!drops(any_adapter(group), context)) {
    group.stacked_a().gradient.add_(at::mm(g.t(), x));
    if (dx.defined()) dx.addmm_(g, group.stacked_a().compute);
    return;
  }
  int64_t column = 0;
  for (const LoraLinear& layer : group.layers()) {
    if (!layer.adapter) continue;
    Adapter& adapter = *layer.adapter;
    const uint64_t key = mask_key(adapter, context);
    const at::Tensor g_i = g.narrow(1, column, adapter.rank).contiguous();
    adapter.grad_a.add_(at::mm(g_i.t(), dropout(x, adapter.dropout, key)));
    if (dx.defined()) dx.add_(dropout(at::mm(g_i, adapter.a_compute), adapter.dropout, key));
    column += adapter.rank;
  }
}

struct GroupNode : torch::autograd::Function<GroupNode> {
  // `anchor` is an adapter's master: it makes the node part of the graph where x itself needs no
  // gradient.
  static variable_list forward(AutogradContext* ctx, const Variable& x, const Variable& anchor,
                               const LinearGroup* group, const ForwardContext* context) {
    (void)anchor;
    const at::Tensor h = low_rank_inputs(*group, x, *context);
    ctx->save_for_backward({x, h});
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group);
    ctx->saved_data["training"] = context->training;
    ctx->saved_data["key"] = static_cast<int64_t>(context->dropout_key);
    ctx->saved_data["workspace"] = reinterpret_cast<int64_t>(context->workspace);
    return outputs(*group, x, h, *context);
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    const auto saved = ctx->get_saved_variables();
    const auto* group = reinterpret_cast<const LinearGroup*>(ctx->saved_data["group"].toInt());
    ForwardContext context;
    context.training = ctx->saved_data["training"].toBool();
    context.dropout_key = static_cast<uint64_t>(ctx->saved_data["key"].toInt());
    context.workspace = reinterpret_cast<quant::Workspace*>(ctx->saved_data["workspace"].toInt());
    for (at::Tensor& d : dy) d = d.contiguous();

    at::Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty_like(saved[0]);
      for (size_t i = 0; i < dy.size(); ++i)
        group->layers()[i].base->input_gradient_into(dy[i], dx, i > 0, *context.workspace);
    }
    const at::Tensor g = low_rank_gradients(*group, dy, saved[1]);
    add_low_rank_input_gradient(*group, saved[0], g, dx, context);
    return {dx, Variable(), Variable(), Variable()};
  }
};

// A group without adapters still has to carry the gradient to the layers below it.
struct FrozenGroupNode : torch::autograd::Function<FrozenGroupNode> {
  static variable_list forward(AutogradContext* ctx, const Variable& x, const LinearGroup* group,
                               const ForwardContext* context) {
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group);
    ctx->saved_data["workspace"] = reinterpret_cast<int64_t>(context->workspace);
    return outputs(*group, x, at::Tensor(), *context);
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    const auto* group = reinterpret_cast<const LinearGroup*>(ctx->saved_data["group"].toInt());
    auto& workspace = *reinterpret_cast<quant::Workspace*>(ctx->saved_data["workspace"].toInt());
    at::Tensor dx = at::empty({dy[0].size(0), group->layers()[0].in_features()}, dy[0].options());
    for (size_t i = 0; i < dy.size(); ++i)
      group->layers()[i].base->input_gradient_into(dy[i].contiguous(), dx, i > 0, workspace);
    return {dx, Variable(), Variable()};
  }
};

}  // namespace

std::vector<at::Tensor> LinearGroup::forward(const at::Tensor& x,
                                             const ForwardContext& context) const {
  const bool adapted = has_adapters() && context.adapters_enabled;
  if (!at::GradMode::is_enabled())
    return outputs(*this, x, adapted ? low_rank_inputs(*this, x, context) : at::Tensor(), context);
  if (!adapted) return FrozenGroupNode::apply(x, this, &context);
  return GroupNode::apply(x, any_adapter(*this).a, this, &context);
}

}  // namespace qlora::lora
