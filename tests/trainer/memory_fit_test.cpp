#include "trainer/memory_fit.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/trainer/small_plan.h"

namespace qlora::trainer {
namespace {

TEST(MemoryFit, TheFastestSettingsThatFitAreTaken) {
  PlannedRun run = planned(method("nf4"), 2048);
  run.micro_batch_size = 4;
  const int64_t all = plan_memory(run).peak();
  const MemoryFit roomy = fit_memory(run, 2, 2 * all);
  EXPECT_TRUE(roomy.fits);
  EXPECT_EQ(roomy.run.micro_batch_size, 8);
  EXPECT_FALSE(roomy.run.recompute_layers.any());
  for (int64_t limit = all; limit > all / 2; limit -= all / 50) {
    const MemoryFit fit = fit_memory(run, 2, limit);
    EXPECT_EQ(fit.run.micro_batch_size * fit.gradient_accumulation_steps, 8);
    EXPECT_EQ(fit.fits, fit.plan.peak() <= limit);
  }
}

TEST(MemoryFit, RanksKeepEqualPartsOfAStep) {
  PlannedRun run = planned(method("nf4"), 2048);
  run.ranks = 3;
  const MemoryFit fit = fit_memory(run, 6, 2 * plan_memory(run).peak());
  EXPECT_TRUE(fit.fits);
  EXPECT_EQ(fit.run.micro_batch_size, 2);  // one of six rows would leave two ranks without work
  EXPECT_EQ(fit.gradient_accumulation_steps, 3);
  EXPECT_EQ(fit.run.micro_batches_a_rank, 1);
  EXPECT_THROW(fit_memory(run, 4, 1 << 30), Error);
}

TEST(MemoryFit, AsFewLayersAreRecomputedAsItFitsWith) {
  PlannedRun run = planned(method("nf4"), 4096);
  run.architecture = small_shape(12);
  for (int64_t layers = 1; layers < 11; ++layers) {
    run.recompute_layers = model::RecomputedLayers::first(layers);
    const int64_t limit = plan_memory(run).peak();
    const MemoryFit fit = fit_memory(run, 1, limit);
    EXPECT_TRUE(fit.fits);
    EXPECT_EQ(fit.run.recompute_layers.count(12), layers);
  }
}

TEST(MemoryFit, AMicroBatchIsHalvedWhereThatCostsLessThanRecomputation) {
  PlannedRun run = planned(method("nf4"), 2048);
  run.architecture = small_shape(12);
  run.micro_batch_size = 2;
  const auto fit_of_half = [&run] {
    run.recompute_layers = model::RecomputedLayers::first(6);
    return fit_memory(run, 1, plan_memory(run).peak()).run;
  };
  const PlannedRun on_cpu = fit_of_half();
  EXPECT_EQ(on_cpu.micro_batch_size, 1);
  EXPECT_FALSE(on_cpu.recompute_layers.any());
  run.on_gpu = true;
  run.sequence_length = 256;
  const PlannedRun on_gpu = fit_of_half();
  EXPECT_EQ(on_gpu.micro_batch_size, 2);
  EXPECT_EQ(on_gpu.recompute_layers.count(12), 6);
}

TEST(MemoryFit, WhereNothingFitsTheLeastIsGiven) {
  PlannedRun run = planned(method("nf4"), 512);
  run.micro_batch_size = 2;
  const MemoryFit fit = fit_memory(run, 1, 1000);
  EXPECT_FALSE(fit.fits);
  EXPECT_EQ(fit.run.micro_batch_size, 1);
  EXPECT_EQ(fit.gradient_accumulation_steps, 2);
  EXPECT_LE(fit.plan.peak(), plan_memory(run).peak());
}

TEST(MemoryFit, OnAGpuOptimizerStateIsPagedOutBeforeLayersAreRecomputed) {
  PlannedRun run = planned(method("nf4"), 512);
  run.on_gpu = true;
  run.lora.rank = 512;  // whose state is more than the pages that stay
  run.optim.name = "adamw";
  const int64_t all = plan_memory(run).peak();
  const MemoryFit fit = fit_memory(run, 1, all - 1);
  EXPECT_TRUE(fit.fits);
  EXPECT_FALSE(fit.run.recompute_layers.any());
  EXPECT_EQ(fit.run.optim.name, "paged_adamw");
  EXPECT_GT(fit.plan.bytes_in(Phase::kHost), 0);
}

TEST(MemoryFit, AutoRecomputesOnlyWhereMemoryDemandsIt) {
  const PlannedRun run = planned(method("nf4"), 4096);
  const int64_t needed = plan_memory(run).after_loading();
  EXPECT_FALSE(choose_recomputation("auto", run, 2 * needed).any());
  const auto some = choose_recomputation("auto", run, needed);
  EXPECT_TRUE(some.any());
  EXPECT_FALSE(some.all());
  const auto least = choose_recomputation("auto", run, 0);
  for (int64_t layers = 0; layers <= 3; ++layers) {
    PlannedRun other = run, chosen = run;
    other.recompute_layers = model::RecomputedLayers::first(layers);
    chosen.recompute_layers = least;
    EXPECT_LE(plan_memory(chosen).peak(), plan_memory(other).peak());
  }
  EXPECT_TRUE(choose_recomputation("true", run, 2 * needed).all());
  EXPECT_FALSE(choose_recomputation("false", run, 0).any());
  EXPECT_EQ(choose_recomputation("2", run, 0), model::RecomputedLayers::first(2));
  EXPECT_TRUE(choose_recomputation("3", run, 0).all());
  for (const char* out_of_range : {"4", "99999999999999999999", "-1"})
    EXPECT_THROW(choose_recomputation(out_of_range, run, needed), ConfigError);
}

}  // namespace
}  // namespace qlora::trainer
