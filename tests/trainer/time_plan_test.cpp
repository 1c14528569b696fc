#include "trainer/time_plan.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <vector>

#include "base/profile.h"
#include "base/stop.h"
#include "model/families/llama_like.h"

namespace qlora::trainer {
namespace {

PlannedRun tiny(int64_t tokens) {
  PlannedRun run;
  model::LlamaSizes sizes;
  sizes.vocab_size = 300;
  sizes.hidden_size = 64;
  sizes.intermediate_size = 128;
  sizes.num_layers = 5;
  sizes.num_heads = 2;
  sizes.num_kv_heads = 1;
  sizes.head_dim = 32;
  sizes.tied_embeddings = true;
  run.architecture = model::llama_like("llama", sizes);
  run.sequence_length = tokens;
  return run;
}

std::map<std::string, double> stages(const TimePlan& plan) {
  std::map<std::string, double> all;
  for (const StagePlan& stage : plan.stages) all[stage.stage] = stage.seconds;
  return all;
}

TEST(TimePlan, EveryStageOfAStepIsThereAndTheyAddUp) {
  const PlannedRun run = tiny(128);
  quant::QuantizationOptions nf4;
  nf4.method = "nf4";
  const TimePlan plan = plan_time({run, 4, nf4});
  const auto all = stages(plan);
  double sum = 0;
  for (const char* stage : {"linear", "linear backward", "attention", "attention backward",
                            "dequantize", "head", "softmax and loss", "optimizer"}) {
    ASSERT_TRUE(all.contains(stage)) << stage;
    EXPECT_GT(all.at(stage), 0) << stage;
  }
  for (const auto& [stage, seconds] : all) sum += seconds;
  EXPECT_NEAR(plan.seconds_a_step, sum, 1e-9);
  EXPECT_NEAR(plan.tokens_a_second, 4 * 128 / sum, 1e-6 * plan.tokens_a_second);
}

TEST(TimePlan, SomeLayersRecomputedTakeATimeBetweenNoneAndAll) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);  // the time on the processor, which other programs disturb less
  PlannedRun run = tiny(4096);
  run.recompute_layers = model::RecomputedLayers::first(2);
  quant::QuantizationOptions nf4;
  nf4.method = "nf4";
  const auto some = stages(plan_time({run, 1, nf4}));
  run.recompute_layers = false;
  const auto none = stages(plan_time({run, 1, nf4}));
  at::set_num_threads(threads);
  // A recomputed layer takes the forward pass of attention twice: 1.4 times in all.
  EXPECT_GT(some.at("attention"), 1.1 * none.at("attention"));
  EXPECT_LT(some.at("attention"), 1.7 * none.at("attention"));
}

TEST(TimePlan, AdaptersOfLaterLayersAloneAreMeasuredToo) {
  PlannedRun run = tiny(64);
  run.lora.targets = {"q_proj", "v_proj"};
  for (const int64_t layer : {0, 1, 4}) {  // of which a sample has two
    run.lora.layers_to_transform = {layer};
    const TimePlan plan = plan_time({run, 1, {}});
    EXPECT_TRUE(stages(plan).contains("lora gradient")) << layer;
    EXPECT_FALSE(stages(plan).contains("dequantize")) << layer;  // the base stays in 16 bit
  }
}

TEST(TimePlan, AKindOfLayersWithoutAnAdapterIsMeasuredToo) {
  PlannedRun run = tiny(64);
  model::StackSpec& layers = run.architecture.decoder;
  layers.kinds.push_back(layers.kinds.front());
  layers.kind_of = {0, 1, 0, 1, 0};
  run.lora.layers_to_transform = {0};
  EXPECT_GT(plan_time({run, 1, {}}).seconds_a_step, 0);
  run.lora.layers_to_transform.clear();
  run.lora.targets = {".*\\.3\\..*proj"};
  EXPECT_GT(plan_time({run, 1, {}}).seconds_a_step, 0);
}

TEST(TimePlan, ModulesOfLaterLayersMayBeTrainedWhole) {
  PlannedRun run = tiny(64);
  run.lora.modules_to_save = {"model.layers.3.input_layernorm", "model.layers.4.mlp.up_proj",
                              "model.norm"};
  EXPECT_GT(plan_time({run, 1, {}}).seconds_a_step, 0);
}

TEST(TimePlan, WhereEvenAShortSampleTakesTooLongTheProductsAloneAreCounted) {
  PlannedRun run = tiny(1 << 20);
  Calibration calibration{run, 2, {}};
  calibration.seconds = 1e-7;
  const TimePlan once = plan_time(calibration);
  ASSERT_EQ(once.stages.size(), 1u);
  EXPECT_EQ(once.stages[0].stage, kProductsAlone);
  EXPECT_GT(once.seconds_a_step, 0);
  EXPECT_LT(once.calibration_seconds, 2);
}

TEST(TimePlan, TimeOnTheProcessorIsTheSameWhateverElseRuns) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  EXPECT_EQ(plan_time({tiny(64), 1, {}}).taken_by_others, 0);
  at::set_num_threads(threads);
}

// The fastest of three, which other programs disturbed least.
TimePlan undisturbed_plan(int64_t tokens) {
  const PlannedRun run = tiny(tokens);
  Calibration calibration{run, 1, {}};
  calibration.seconds = 0.05;
  std::vector<TimePlan> plans;
  for (int i = 0; i < 3; ++i) plans.push_back(plan_time(calibration));
  return *std::ranges::min_element(plans, {}, &TimePlan::seconds_a_step);
}

TEST(TimePlan, LongSequencesTakeLongerByTheirTokensAndTheirAttention) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);  // the time on the processor, which other programs disturb less
  std::vector<TimePlan> plans;
  for (const int64_t tokens : {1'000, 10'000, 100'000}) {
    plans.push_back(undisturbed_plan(tokens));
    EXPECT_LT(plans.back().calibration_seconds, 60);
  }
  at::set_num_threads(threads);
  // Ten times as many tokens: between ten times the work, and a hundred where all is attention.
  for (size_t i = 1; i < plans.size(); ++i) {
    const double times = plans[i].seconds_a_step / plans[i - 1].seconds_a_step;
    EXPECT_GT(times, 4) << i;
    EXPECT_LT(times, 250) << i;
  }
  EXPECT_LT(plans[2].tokens_a_second, plans[0].tokens_a_second);
}

TEST(TimePlan, ASampleOfLongSequencesIsAsShortAsItsAttentionAsks) {
  PlannedRun run = tiny(100'000);
  run.micro_batch_size = 4;
  const PlannedRun sample = calibration_run(run);
  // Of 10^12 operations: 0.5 10^6 a token, and 2304 a token and key that it sees.
  EXPECT_GT(sample.sequence_length, 25'000);
  EXPECT_LT(sample.sequence_length, 32'000);
  EXPECT_EQ(sample.micro_batch_size, 1);
  run.sequence_length = 1000;
  EXPECT_EQ(calibration_run(run).sequence_length, 1000);
  EXPECT_EQ(calibration_run(run).micro_batch_size, 4);
}

TEST(TimePlan, ByArithmeticTooLongSequencesTakeLonger) {
  double last = 0;
  for (const int64_t tokens : {1'000, 10'000, 100'000}) {
    const PlannedRun run = tiny(tokens);
    Calibration calibration{run, 1, {}};
    calibration.seconds = 1e-7;
    const TimePlan plan = plan_time(calibration);
    ASSERT_EQ(plan.stages.at(0).stage, kProductsAlone);
    EXPECT_GT(plan.seconds_a_step, 3 * last);
    last = plan.seconds_a_step;
  }
}

TEST(TimePlan, AStepTakesTheLongerOfItsProductsAndTheFetching) {
  PlannedRun run = tiny(64);
  run.weight = [](const std::string&, const model::LinearSpec&) {
    return quant::WeightBytes{.weights = 1'000'000'000};  // seven of them a block
  };
  const TimePlan near = plan_time({run, 1, {}});
  EXPECT_FALSE(near.fetch.any());
  run.placement.layers.assign(5, quant::Home::kDisk);
  const TimePlan far = plan_time({run, 3, {}});
  // Three micro-batches, forward and backward, of five blocks less the two that are near.
  EXPECT_DOUBLE_EQ(far.fetch.disk_bytes, 3 * 2 * 3 * 7e9);
  EXPECT_TRUE(far.fetch.disk_rate_is_assumed);
  EXPECT_DOUBLE_EQ(far.seconds_a_step, far.fetch.disk_bytes / kAssumedDiskRate);
  EXPECT_NEAR(far.tokens_a_second, 3 * 64 / far.seconds_a_step, 1e-6);
  double products = 0;
  for (const StagePlan& stage : far.stages) products += stage.seconds;
  EXPECT_LT(products, far.seconds_a_step);
}

TEST(TimePlan, MeasuringLeavesTheProgramsRandomNumbersAsTheyWere) {
  at::manual_seed(7);
  const at::Tensor expected = at::rand({4});
  at::manual_seed(7);
  const PlannedRun run = tiny(64);
  plan_time({run, 1, {}});
  EXPECT_TRUE(at::equal(at::rand({4}), expected));
}

TEST(TimePlan, MeasuringIsLeftWhenAStopIsWanted) {
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  const PlannedRun run = tiny(64);
  EXPECT_THROW(plan_time({run, 1, {}}), Stopped);
  EXPECT_EQ(profile_detail::active, false);
}

}  // namespace
}  // namespace qlora::trainer
