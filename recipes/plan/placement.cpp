#include "recipes/plan/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "base/device.h"
#include "base/error.h"
#include "recipes/plan/free_memory.h"
#include "trainer/memory_fit.h"
#include "trainer/placement_fit.h"

namespace qlora::recipes {
namespace {

c10::Device device_of(const Recipe& recipe, bool on_gpu) {
  if (!on_gpu) return at::kCPU;
  return recipe.train.device.starts_with("cuda:") ? c10::Device(recipe.train.device)
                                                  : c10::Device("cuda:0");
}

struct Limit {
  int64_t bytes = 0;
  bool by_recipe = false;
  std::string text;
};

// Of each rank, if several share what the device has.
Limit limit_of(const model::ModelOptions& options, c10::Device device, int ranks_here) {
  const std::string name = device.str();
  Limit limit;
  if (const auto bytes = model::memory_limit(options, device)) {
    limit = {*bytes, true, "model.max_memory." + name};
  } else {
    if (device.is_cuda() && !cuda_available())
      fail<ConfigError>(
          "model.device_map: auto needs the GPU at hand, or model.max_memory that says what {} has",
          name);
    const int64_t free_bytes = free_memory_of_rank(device, ranks_here);
    limit = {static_cast<int64_t>(trainer::kUsableShare * static_cast<double>(free_bytes)), false,
             fmt::format("what is free on {}{}", name, ranks_here > 1 ? " for each rank" : "")};
  }
  limit.text = fmt::format("{:.0f} MB ({})", static_cast<double>(limit.bytes) / 1e6, limit.text);
  return limit;
}

}  // namespace

void require_own_devices(const Recipe& recipe, bool on_gpu, int ranks_here) {
  model::require_own_devices(recipe.model, device_of(recipe, on_gpu), ranks_here);
}

int64_t free_within_limit(const Recipe& recipe, const trainer::PlannedRun& run,
                          int64_t free_bytes) {
  const auto limit = model::memory_limit(recipe.model, device_of(recipe, run.on_gpu));
  if (!limit) return free_bytes;
  // All of the limit may be taken.
  const auto left = static_cast<double>(*limit - trainer::plan_memory(run).loaded_bytes());
  return std::min(free_bytes, static_cast<int64_t>(left / trainer::kUsableShare));
}

model::Placement placement_of(const Recipe& recipe, const trainer::PlannedRun& run,
                              int ranks_here) {
  const c10::Device device = device_of(recipe, run.on_gpu);
  if (!model::is_automatic(recipe.model))
    return model::placement_of(recipe.model, run.architecture, device,
                               recipe.quantization.fp32_cpu_offload);
  trainer::PlannedRun fitted = run;
  if (recipe.train.gradient_checkpointing == "auto") fitted.recompute_layers = true;
  const Limit limit = limit_of(recipe.model, device, ranks_here);
  trainer::MemoryLimits limits{limit.bytes, std::nullopt};
  if (run.on_gpu) limits.host = limit_of(recipe.model, at::kCPU, ranks_here).bytes;
  trainer::PlacementFit fit = trainer::fit_placement(fitted, limits);
  if (!fit.fits && limit.by_recipe)
    fail<ConfigError>(
        "model.max_memory.{}: with all blocks elsewhere the run is planned to take {:.0f} MB, and "
        "the limit is {:.0f} MB; raise it, or lower data.sequence_length, train.micro_batch_size "
        "or "
        "lora.rank",
        device.str(), static_cast<double>(fit.peak) / 1e6, static_cast<double>(limit.bytes) / 1e6);
  fit.placement.limit = limit.text;
  return fit.placement;
}

}  // namespace qlora::recipes
