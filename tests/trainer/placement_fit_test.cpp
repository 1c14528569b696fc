#include "trainer/placement_fit.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/families/llama_like.h"

namespace qlora::trainer {
namespace {
using quant::Home;

PlannedRun run_of(bool on_gpu) {
  model::LlamaSizes config;
  config.vocab_size = 1000;
  config.hidden_size = 1024;
  config.intermediate_size = 4096;
  config.num_layers = 12;
  config.num_heads = 16;
  config.num_kv_heads = 16;
  config.head_dim = 64;
  config.tied_embeddings = true;
  PlannedRun run;
  run.architecture = model::llama_like("llama", config);
  run.on_gpu = on_gpu;
  run.recompute_layers = true;
  run.sequence_length = 64;
  run.weight = [](const std::string& module, const model::LinearSpec& linear) {
    return quant::planned_weight_bytes({}, module, linear.out, linear.in, at::kBFloat16);
  };
  return run;
}

int64_t peak_with(PlannedRun run, const model::Placement& placement) {
  run.placement = placement;
  return plan_memory(run).peak();
}

TEST(PlacementFit, WithRoomForAllNothingMoves) {
  const PlannedRun run = run_of(false);
  const PlacementFit fit = fit_placement(run, {plan_memory(run).peak(), {}});
  EXPECT_TRUE(fit.fits);
  EXPECT_FALSE(fit.placement.elsewhere());
}

TEST(PlacementFit, TheFirstBlocksMoveAndNoMoreThanMustForTheLimit) {
  const PlannedRun run = run_of(false);
  const int64_t all = plan_memory(run).peak();
  const int64_t block = (all - peak_with(run, fit_placement(run, {0, {}}).placement)) / 10;
  const PlacementFit fit = fit_placement(run, {all - 3 * block, {}});
  EXPECT_TRUE(fit.fits);
  EXPECT_LE(fit.peak, all - 3 * block);
  EXPECT_EQ(fit.peak, peak_with(run, fit.placement));
  EXPECT_EQ(fit.placement.count(Home::kDisk), 5);  // two more are near
  EXPECT_TRUE(std::ranges::is_sorted(fit.placement.layers, std::greater()));
  model::Placement fewer = fit.placement;
  fewer.layers[4] = Home::kDevice;
  EXPECT_GT(peak_with(run, fewer), all - 3 * block);
}

TEST(PlacementFit, ALimitBelowAllElseIsNotMet) {
  const PlacementFit fit = fit_placement(run_of(false), {1000, {}});
  EXPECT_FALSE(fit.fits);
  EXPECT_EQ(fit.placement.count(Home::kDisk), 12);
}

TEST(PlacementFit, BesideAGpuTheHostTakesWhatItHasRoomForAndTheDiskTheRest) {
  const PlannedRun run = run_of(true);
  PlannedRun whole = run;
  whole.placement.layers.assign(12, Home::kHost);
  const MemoryPlan on_host = plan_memory(whole);
  whole.placement.layers.assign(12, Home::kDisk);
  const MemoryPlan on_disk = plan_memory(whole);
  const int64_t blocks = on_disk.bytes_in(Phase::kDisk), rest = on_disk.bytes_in(Phase::kHost);
  EXPECT_EQ(on_host.bytes_in(Phase::kHost), blocks + rest);
  const PlacementFit fit = fit_placement(run, {1000, blocks / 2});
  EXPECT_EQ(fit.placement.count(Home::kHost), 6);
  EXPECT_EQ(fit.placement.count(Home::kDisk), 6);
  PlannedRun placed = run;
  placed.placement = fit.placement;
  const MemoryPlan plan = plan_memory(placed);
  EXPECT_EQ(plan.bytes_in(Phase::kHost), blocks / 2 + rest);
  EXPECT_EQ(plan.bytes_in(Phase::kDisk), blocks / 2);
  EXPECT_EQ(plan.peak(), on_host.peak());
}

}  // namespace
}  // namespace qlora::trainer
