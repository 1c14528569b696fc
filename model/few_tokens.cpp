#include "model/few_tokens.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "lora/stacked_weights.h"
#include "quant/few_rows/rows_product.h"

namespace qlora::model {
namespace {

using quant::ProductRun;

bool takes_few_rows(const quant::ProductFacts& facts) {
  const ProductRun run = quant::product_route(facts, quant::Pass::kForward).run;
  if (run != ProductRun::kEach || facts.layers.size() < 2) return run == ProductRun::kFewRows;
  return std::ranges::all_of(facts.layers, [&facts](const quant::LayerFacts& layer) {
    return takes_few_rows({.left = facts.left, .sums = facts.sums, .layers = {layer}});
  });
}

// As lora/low_rank.h wants it.
bool lies_in_rows(const at::Tensor& factor, at::ScalarType dtype) {
  return factor.is_contiguous() && factor.scalar_type() == dtype;
}

bool has_few_rows_kernels(const lora::LinearGroup& group, at::ScalarType dtype) {
  if (!std::ranges::all_of(group.layers(), [](const auto& layer) { return layer.base != nullptr; }))
    return false;
  const at::Tensor x = at::empty({quant::kFewRows, 1}, dtype);
  if (!takes_few_rows(lora::product_facts(group.layers(), x, false))) return false;
  if (group.has_adapters() && !lies_in_rows(group.stacked_a().compute, dtype)) return false;
  return std::ranges::all_of(group.layers(), [dtype](const lora::LoraLinear& layer) {
    return !layer.adapter || (lies_in_rows(layer.adapter->a_compute, dtype) &&
                              lies_in_rows(layer.adapter->b_compute, dtype));
  });
}

}  // namespace

bool tokens_are_independent(const CausalLm& model) {
  if (!model.device().is_cpu() || model.architecture().has_encoder()) return false;
  const at::ScalarType compute = model.compute_dtype();
  const auto independent = [compute](const lora::LinearGroup* group) {
    return has_few_rows_kernels(*group, compute);
  };
  return std::ranges::all_of(model.groups(), independent) &&
         has_few_rows_kernels(model.head, model.upcast_from ? at::kFloat : compute);
}

}  // namespace qlora::model
