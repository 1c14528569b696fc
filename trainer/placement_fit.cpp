#include "trainer/placement_fit.h"

#include <algorithm>
#include <ranges>
#include <utility>

namespace qlora::trainer {
namespace {
using quant::Home;

int64_t block_bytes(const PlannedRun& run, int64_t layer) {
  int64_t bytes = 0;
  run.architecture.block(layer).for_each_linear([&](const model::LinearSpec& linear) {
    const quant::WeightBytes weight =
        run.weight(run.architecture.module(layer, linear.names), linear);
    bytes += weight.weights + weight.scales;
  });
  return bytes;
}

// The first `count` layers elsewhere.
model::Placement first_elsewhere(const PlannedRun& run, int64_t count,
                                 std::optional<int64_t> host_bytes) {
  model::Placement placement;
  if (count == 0) return placement;
  placement.layers.assign(static_cast<size_t>(run.architecture.num_layers()), Home::kDevice);
  int64_t left = host_bytes.value_or(0);
  for (int64_t layer = count - 1; layer >= 0; --layer) {
    const int64_t bytes = host_bytes ? block_bytes(run, layer) : 0;
    const bool on_host = host_bytes && bytes <= left;
    if (on_host) left -= bytes;
    placement.layers[static_cast<size_t>(layer)] = on_host ? Home::kHost : Home::kDisk;
  }
  return placement;
}

}  // namespace

PlacementFit fit_placement(PlannedRun run, const MemoryLimits& limits) {
  const int64_t num_layers = run.architecture.num_layers();
  const auto peak_with = [&](int64_t count) {
    run.placement = first_elsewhere(run, count, limits.host);
    return plan_memory(run).peak();
  };
  const auto counts = std::views::iota(int64_t{0}, num_layers + 1);
  const auto found = std::ranges::partition_point(
      counts, [&](int64_t count) { return peak_with(count) > limits.device; });
  const int64_t count = found == counts.end() ? num_layers : *found;
  PlacementFit fit;
  fit.peak = peak_with(count);
  fit.fits = fit.peak <= limits.device;
  fit.placement = std::move(run.placement);
  return fit;
}

}  // namespace qlora::trainer
