#include "lora/stacked_weights.h"

#include <ATen/ATen.h>

#include "quant/product.h"
#include "quant/rows_product.h"

namespace qlora::lora {
namespace {

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

}  // namespace

bool can_stack(const std::vector<LoraLinear>& layers) {
  if (layers.size() < 2) return false;
  for (const LoraLinear& layer : layers)
    if (!layer.base->multiplies_dequantized() || layer.trained_weight || layer.trained_rows ||
        (layer.adapter && layer.adapter->is_dora()))
      return false;
  return true;
}

void stacked_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                          bool accumulate, at::Tensor y, quant::Workspace& workspace) {
  std::vector<const quant::FrozenWeight*> weights;
  for (const LoraLinear& layer : layers) weights.push_back(layer.base.get());
  if (quant::multiply_few_rows(weights, x, accumulate, y)) return;
  quant::multiply_into(x, panel_of(layers, quant::product_dtype(x), workspace).t(), accumulate, y);
}

void stacked_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                            bool accumulate, at::Tensor& dx, quant::Workspace& workspace) {
  quant::multiply_into(dy, panel_of(layers, quant::product_dtype(dy), workspace), accumulate, dx);
}

}  // namespace qlora::lora
