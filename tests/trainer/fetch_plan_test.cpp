#include "trainer/fetch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "model/families/llama_like.h"
#include "tests/support/temp_dir.h"
#include "trainer/loss.h"

namespace qlora::trainer {
namespace {
using quant::Home;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kLayers = 6, kHidden = 64, kVocabulary = 1000, kTokens = 1024;
constexpr double kBlockBytes = 7 * 100;  // of seven linear layers

PlannedRun run_with(const model::Placement& placement) {
  model::LlamaSizes sizes;
  sizes.vocab_size = kVocabulary;
  sizes.hidden_size = kHidden;
  sizes.intermediate_size = 128;
  sizes.num_layers = kLayers;
  sizes.num_heads = 2;
  sizes.num_kv_heads = 1;
  sizes.head_dim = 32;
  sizes.tied_embeddings = false;
  PlannedRun run;
  run.architecture = model::llama_like("llama", sizes);
  run.sequence_length = kTokens;
  run.weight = [](const std::string&, const model::LinearSpec&) {
    return quant::WeightBytes{.weights = 90, .scales = 10};
  };
  run.placement = placement;
  return run;
}

model::Placement elsewhere(Home home, size_t count) {
  model::Placement placement;
  placement.layers.assign(static_cast<size_t>(kLayers), Home::kDevice);
  for (size_t layer = 0; layer < count; ++layer) placement.layers[layer] = home;
  return placement;
}

TEST(FetchPlan, NothingIsFetchedOfARunWithAllOnTheDevice) {
  const FetchPlan plan = plan_fetch(run_with({}), 4, "", at::kCPU);
  EXPECT_FALSE(plan.any());
  EXPECT_EQ(plan.seconds, 0);
  EXPECT_EQ(plan.to_text(), "");
}

TEST(FetchPlan, ABlockComesForwardAndBackwardUnlessItIsStillNear) {
  EXPECT_EQ(fetched_bytes(run_with(elsewhere(Home::kDisk, 2)), 3).disk_bytes, 0);
  for (const size_t count : {3u, 6u}) {
    const FetchPlan plan = fetched_bytes(run_with(elsewhere(Home::kDisk, count)), 3);
    EXPECT_DOUBLE_EQ(plan.disk_bytes, 3 * 2 * static_cast<double>(count - 2) * kBlockBytes);
    EXPECT_EQ(plan.host_bytes, 0);
  }
  PlannedRun recomputed = run_with(elsewhere(Home::kHost, 6));
  const double kept = fetched_bytes(recomputed, 1).host_bytes;
  recomputed.recompute_layers = true;
  EXPECT_EQ(fetched_bytes(recomputed, 1).host_bytes, kept);
  EXPECT_GT(kept, 0);
}

TEST(FetchPlan, TheHeadComesTwiceForEachChunkOfRowsAndTheEmbeddingHardly) {
  model::Placement placement = elsewhere(Home::kDisk, 0);
  placement.embedding = Home::kDisk;
  EXPECT_EQ(fetched_bytes(run_with(placement), 1).disk_bytes, 0);
  placement.head = Home::kHost;
  PlannedRun run = run_with(placement);
  const double chunks = static_cast<double>(kTokens) / static_cast<double>(loss_chunk_rows(2));
  const double head = 2.0 * kVocabulary * kHidden;  // in bfloat16
  EXPECT_DOUBLE_EQ(fetched_bytes(run, 5).host_bytes, 5 * 2 * chunks * head);
  run.pairs = true;  // twice as many rows, and once more
  EXPECT_DOUBLE_EQ(fetched_bytes(run, 5).host_bytes, 5 * 3 * 2 * chunks * head);
}

TEST(FetchPlan, BlocksThatTheHostMultipliesAreNotFetchedToTheGpu) {
  model::Placement placement = elsewhere(Home::kHost, 4);
  placement.float32 = {true, true, true, true, false, false};
  PlannedRun run = run_with(placement);
  run.on_gpu = true;
  EXPECT_FALSE(fetched_bytes(run, 1).any());
}

TEST(FetchPlan, OfSharedBlocksTheOtherRanksPartsComeInTimeByTheRateThatIsSaid) {
  PlannedRun run = run_with(elsewhere(Home::kRanks, 6));
  EXPECT_FALSE(fetched_bytes(run, 3).any());  // by one rank
  run.ranks = 4;
  const double bytes = 3 * 2 * 4 * kBlockBytes * 3 / 4;
  EXPECT_DOUBLE_EQ(fetched_bytes(run, 3).rank_bytes, bytes);
  const FetchPlan assumed = plan_gathers(run, 3);
  EXPECT_DOUBLE_EQ(assumed.rank_bytes, bytes);
  EXPECT_DOUBLE_EQ(assumed.seconds, bytes / kAssumedRankRate);
  EXPECT_THAT(assumed.to_text(), HasSubstr("other ranks 10.00 GB/s, assumed"));
  run.rank_rate = 500;
  const FetchPlan said = plan_fetch(run, 3, "", at::kCPU);
  EXPECT_DOUBLE_EQ(said.seconds, bytes / 500);
  EXPECT_FALSE(said.rank_rate_is_assumed);
}

TEST(FetchPlan, WithoutAFileTheDisksRateIsAssumedAndSaysSo) {
  const PlannedRun run = run_with(elsewhere(Home::kDisk, 6));
  const FetchPlan plan = plan_fetch(run, 1, "", at::kCPU);
  EXPECT_TRUE(plan.disk_rate_is_assumed);
  EXPECT_DOUBLE_EQ(plan.seconds, plan.disk_bytes / kAssumedDiskRate);
  EXPECT_THAT(plan.to_text(), HasSubstr("disk 1.00 GB/s, assumed"));
}

TEST(FetchPlan, WithOneItIsMeasured) {
  const test::TempDir dir;
  const std::string file = dir.write("weights.bin", std::string(3 << 20, 'w'));
  const PlannedRun run = run_with(elsewhere(Home::kDisk, 6));
  const FetchPlan plan = plan_fetch(run, 1, file, at::kCPU);
  EXPECT_FALSE(plan.disk_rate_is_assumed);
  EXPECT_GT(plan.disk_rate, 0);
  EXPECT_DOUBLE_EQ(plan.seconds, plan.disk_bytes / plan.disk_rate);
  EXPECT_THAT(plan.to_text(), Not(HasSubstr("assumed")));
  EXPECT_THROW(plan_fetch(run, 1, dir / "gone.bin", at::kCPU), IoError);
}

TEST(FetchPlan, HostMemoryHasARateOfItsOwn) {
  const FetchPlan plan = plan_fetch(run_with(elsewhere(Home::kHost, 6)), 1, "", at::kCPU);
  EXPECT_GT(plan.host_rate, 0);
  EXPECT_EQ(plan.disk_rate, 0);
  EXPECT_DOUBLE_EQ(plan.seconds, plan.host_bytes / plan.host_rate);
  EXPECT_THAT(plan.to_text(), HasSubstr("host memory"));
}

}  // namespace
}  // namespace qlora::trainer
