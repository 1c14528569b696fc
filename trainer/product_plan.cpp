#include "trainer/product_plan.h"

#include <algorithm>

namespace qlora::trainer {
namespace {

// An odd one if there is such, for which there are fewer kernels.
int64_t rank_of(const lora::LoraOptions& options) {
  const auto odd = std::ranges::find_if(
      options.rank_pattern, [](const auto& pattern) { return pattern.second % 2 != 0; });
  return odd == options.rank_pattern.end() ? options.rank : odd->second;
}

}  // namespace

quant::ProductFacts planned_products(const PlannedRun& run) {
  const at::DeviceType device = run.on_gpu ? at::kCUDA : at::kCPU;
  return {.left = {device, run.compute, run.tokens()}, .sums = true};
}

quant::LayerFacts planned_layer(const PlannedRun& run, const model::LinearSpec& linear,
                                const quant::WeightTraits& weight) {
  return {.weight = weight,
          .out = linear.out,
          .in = linear.in,
          .rank = rank_of(run.lora),
          .plain = !run.lora.use_dora};
}

void ProductNeeds::add(const quant::ProductFacts& facts, bool ends_branch) {
  const quant::ProductRoute& route = quant::product_route(facts, quant::Pass::kForward);
  decoded_bytes = std::max(decoded_bytes, quant::decoded_bytes(facts));
  sums_onto = sums_onto && (route.sums || !ends_branch);
  in_int8 = in_int8 || route.in_int8;
  in_int32 = in_int32 || route.in_int32;
  // A gate of one output is one small product, whose kernels are as small.
  const bool is_gate = std::ranges::all_of(
      facts.layers, [](const quant::LayerFacts& layer) { return layer.out == 1; });
  in_library = in_library || (route.in_library && !is_gate);
}

}  // namespace qlora::trainer
