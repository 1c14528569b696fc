#include "lora/stacked_weights.h"

#include <ATen/ATen.h>

#include "lora/columns.h"

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

bool can_stack(const std::vector<LoraLinear>& layers, const at::Tensor& x) {
  // fp16 products on a CPU go through fp32 layer by layer.
  if (layers.size() < 2 || (x.is_cpu() && x.scalar_type() == at::kHalf)) return false;
  for (const LoraLinear& layer : layers)
    if (!layer.base->multiplies_dequantized() || layer.trained_weight || layer.trained_rows ||
        (layer.adapter && layer.adapter->is_dora()))
      return false;
  return true;
}

std::vector<at::Tensor> stacked_forward(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                                        quant::Workspace& workspace) {
  at::NoGradGuard no_grad;
  std::vector<int64_t> widths;
  for (const LoraLinear& layer : layers) widths.push_back(layer.out_features());
  return columns_of(at::mm(x, panel_of(layers, x.scalar_type(), workspace).t()), widths);
}

void stacked_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                            at::Tensor& dx, quant::Workspace& workspace) {
  at::NoGradGuard no_grad;
  at::mm_out(dx, dy, panel_of(layers, dy.scalar_type(), workspace));
}

}  // namespace qlora::lora
