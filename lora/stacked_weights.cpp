#include "lora/stacked_weights.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "quant/few_rows/rows_product.h"

namespace qlora::lora {
namespace {

// The type in which a product with x takes the rows of all layers.
at::ScalarType dtype_for(const std::vector<LoraLinear>& layers, const at::Tensor& x) {
  return quant::rows_dtype(product_facts(layers, x, false));
}

at::Tensor panel_of(const std::vector<LoraLinear>& layers, at::ScalarType dtype,
                    quant::Workspace& workspace) {
  int64_t rows = 0;
  for (const LoraLinear& layer : layers) rows += layer.out_features();
  const quant::FrozenWeight& first = *layers.front().base;
  at::Tensor panel = workspace.matrix(quant::Workspace::Slot::kWeight, rows, first.in_features(),
                                      dtype, first.device());
  int64_t begin = 0;
  for (const LoraLinear& layer : layers) {
    at::Tensor part = panel.narrow(0, begin, layer.out_features());
    layer.base->dequantize_rows(0, 0, layer.out_features(), part);
    begin += layer.out_features();
  }
  return panel;
}

// Nothing but the frozen weight, whose rows are at hand, and an adapter without magnitude.
bool is_plain(const LoraLinear& layer) {
  return !layer.trained_weight && !layer.trained_rows &&
         !(layer.adapter && layer.adapter->is_dora()) && !layer.base->multiplies_alone();
}

bool are_stored(const std::vector<LoraLinear>& layers, at::ScalarType dtype) {
  return std::ranges::all_of(layers, [dtype](const LoraLinear& layer) {
    return quant::is_stored_as(layer.base->traits(), dtype);
  });
}

// The rows of each layer's weight, all of them at once: as they are stored, or in the panel.
std::vector<at::Tensor> rows_of(const std::vector<LoraLinear>& layers, at::ScalarType dtype,
                                quant::Workspace& workspace) {
  const bool stored = are_stored(layers, dtype);
  const at::Tensor panel = stored ? at::Tensor() : panel_of(layers, dtype, workspace);
  std::vector<at::Tensor> rows;
  int64_t begin = 0;
  for (const LoraLinear& layer : layers) {
    rows.push_back(stored ? layer.base->stored_rows(dtype)
                          : panel.narrow(0, begin, layer.out_features()));
    begin += layer.out_features();
  }
  return rows;
}

void summed_int8_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                              const std::vector<quant::SumTarget>& targets) {
  std::vector<quant::SummedInt8Product> products;
  for (size_t i = 0; i < layers.size(); ++i)
    products.push_back({layers[i].base->int8_factor().value().weight, targets[i]});
  // The threshold is one of the whole model.
  quant::multiply_summed_int8(x, layers.front().base->int8_factor().value().threshold, products);
}

}  // namespace

quant::ProductFacts product_facts(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                                  bool sums) {
  quant::ProductFacts facts{.left = quant::left_operand(x), .sums = sums};
  for (const LoraLinear& layer : layers)
    facts.layers.push_back({.weight = layer.base->traits(),
                            .out = layer.out_features(),
                            .in = layer.in_features(),
                            .rank = layer.adapter ? layer.adapter->rank : 0,
                            .plain = is_plain(layer)});
  return facts;
}

void few_rows_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                           bool accumulate, at::Tensor y) {
  std::vector<const quant::FrozenWeight*> weights;
  for (const LoraLinear& layer : layers) weights.push_back(layer.base.get());
  quant::multiply_few_rows(weights, x, accumulate, y);
}

void stacked_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                          bool accumulate, at::Tensor y, quant::Workspace& workspace) {
  quant::multiply_into(x, panel_of(layers, dtype_for(layers, x), workspace).t(), accumulate, y);
}

void stacked_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                            bool accumulate, at::Tensor& dx, quant::Workspace& workspace) {
  quant::multiply_into(dy, panel_of(layers, dtype_for(layers, dy), workspace), accumulate, dx);
}

std::vector<quant::SumTarget> sum_targets(const std::vector<LoraLinear>& layers,
                                          const std::vector<at::Tensor>& h,
                                          const std::vector<bool>& accumulate,
                                          const std::vector<at::Tensor>& y,
                                          const at::Tensor& onto) {
  std::vector<quant::SumTarget> targets;
  for (size_t i = 0; i < layers.size(); ++i) {
    targets.push_back({.out = y[i], .accumulate = accumulate[i], .h = h[i], .onto = onto});
    if (!h[i].defined()) continue;
    targets.back().c = layers[i].adapter->b_compute.t();
    targets.back().scale = layers[i].adapter->scaling;
  }
  return targets;
}

void summed_forward_into(const std::vector<LoraLinear>& layers, quant::ProductRun run,
                         const at::Tensor& x, const std::vector<quant::SumTarget>& targets,
                         quant::Workspace& workspace) {
  if (run == quant::ProductRun::kSummedInt8) return summed_int8_forward_into(layers, x, targets);
  const std::vector<at::Tensor> rows = rows_of(layers, dtype_for(layers, x), workspace);
  std::vector<quant::SummedProduct> products;
  for (size_t i = 0; i < layers.size(); ++i) products.push_back({rows[i].t(), targets[i]});
  quant::multiply_summed(x, products);
}

void summed_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                           const at::Tensor& g, const at::Tensor& a, const at::Tensor& dx,
                           quant::Workspace& workspace) {
  const at::ScalarType dtype = dtype_for(layers, dy);
  if (!are_stored(layers, dtype)) {
    const at::Tensor panel = panel_of(layers, dtype, workspace);
    quant::multiply_summed(dy, {{panel, {.out = dx, .accumulate = false, .h = g, .c = a}}});
    return;
  }
  int64_t column = 0;
  for (const LoraLinear& layer : layers) {
    const bool first = column == 0;
    quant::multiply_summed(dy.narrow(1, column, layer.out_features()),
                           {{layer.base->stored_rows(dtype),
                             {.out = dx,
                              .accumulate = !first,
                              .h = first ? g : at::Tensor(),
                              .c = first ? a : at::Tensor()}}});
    column += layer.out_features();
  }
}

}  // namespace qlora::lora
