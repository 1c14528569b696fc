#include "lora/group_low_rank.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "lora/dropout.h"
#include "lora/low_rank.h"

namespace qlora::lora {

const Adapter& any_adapter(const LinearGroup& group) {
  for (const LoraLinear& layer : group.layers())
    if (layer.adapter) return *layer.adapter;
  throw qlora::Error("LinearGroup: no adapter in the group");
}

at::Tensor low_rank_inputs(const LinearGroup& group, const at::Tensor& x,
                           const ForwardContext& context) {
  at::Tensor h = at::empty({x.size(0), group.stacked_a().compute.size(0)}, x.options());
  low_rank_inputs_into(group, x, context, h);
  return h;
}

void low_rank_inputs_into(const LinearGroup& group, const at::Tensor& x,
                          const ForwardContext& context, const at::Tensor& h) {
  if (!drops(any_adapter(group), context)) {
    low_rank_down(x, group.stacked_a().compute, 1.0, h);
    return;
  }
  int64_t column = 0;
  for (const LoraLinear& layer : group.layers()) {
    if (!layer.adapter) continue;
    const Adapter& adapter = *layer.adapter;  // each drops other inputs, as PEFT's modules do
    low_rank_down(dropped(x, adapter, context), adapter.a_compute, 1.0,
                  h.narrow(1, column, adapter.rank));
    column += adapter.rank;
  }
}

at::Tensor gradient_of_b(const LinearGroup& group, const std::vector<at::Tensor>& dy,
                         const at::Tensor& h) {
  at::Tensor g = at::empty_like(h);
  int64_t column = 0;
  for (size_t i = 0; i < group.layers().size(); ++i) {
    const auto& adapter = group.layers()[i].adapter;
    if (!adapter) continue;
    low_rank_down(dy[i], adapter->b_compute.t(), adapter->scaling,
                  g.narrow(1, column, adapter->rank));
    low_rank_gradient(h.narrow(1, column, adapter->rank), dy[i], adapter->scaling,
                      adapter->grad_b.t());
    column += adapter->rank;
  }
  return g;
}

void gradient_of_a(const LinearGroup& group, const at::Tensor& x, const at::Tensor& g,
                   at::Tensor& dx, const ForwardContext& context) {
  if (!drops(any_adapter(group), context)) {
    low_rank_gradient(g, x, 1.0, group.stacked_a().gradient);
    return;
  }
  int64_t column = 0;
  for (const LoraLinear& layer : group.layers()) {
    if (!layer.adapter) continue;
    Adapter& adapter = *layer.adapter;
    const uint64_t key = mask_key(adapter, context);
    const at::Tensor g_i = g.narrow(1, column, adapter.rank);
    at::Tensor x_i;
    if (dx.defined()) {
      const at::Tensor towards = at::empty_like(dx);
      low_rank_up(g_i, adapter.a_compute.t(), 1.0, false, towards);
      x_i = dropout(x, adapter.dropout, key, towards, dx);
    } else {
      x_i = dropout(x, adapter.dropout, key);
    }
    low_rank_gradient(g_i, x_i, 1.0, adapter.grad_a);
    column += adapter.rank;
  }
}

}  // namespace qlora::lora
