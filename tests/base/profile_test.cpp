#include "base/profile.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/parallel_for.h"
#include "base/stopwatch.h"

namespace qlora {
namespace {

void busy(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

void outer() {
  const ProfileScope scope("outer");
  busy(4);
  for (int i = 0; i < 2; ++i) {
    const ProfileScope inner("inner");
    busy(10);
  }
}

TEST(Profile, AStageIsChargedItsOwnTimeOnly) {
  start_profile();
  const Stopwatch watch;
  outer();
  stop_profile();
  const auto stages = stage_times();
  ASSERT_EQ(stages.size(), 2u);
  EXPECT_GE(stages[0].seconds, stages[1].seconds);  // the longest first
  const size_t inner = stages[0].stage == "inner" ? 0 : 1, outer = 1 - inner;
  EXPECT_EQ(stages[inner].calls, 2);
  EXPECT_EQ(stages[outer].calls, 1);
  EXPECT_GE(stages[inner].seconds, 0.020);
  EXPECT_GE(stages[outer].seconds, 0.004);
  // What the outer one took in all is not charged twice.
  EXPECT_LE(stages[outer].seconds + stages[inner].seconds, watch.seconds());
}

TEST(Profile, NothingIsNotedWhileNoOneLooks) {
  start_profile();
  stop_profile();
  outer();
  EXPECT_TRUE(profile_events().empty());
}

TEST(Profile, ScopesInsideAParallelRegionBelongToTheStageAroundIt) {
  const int threads = num_threads();
  omp_set_num_threads(2);
  start_profile();
  {
    const ProfileScope scope("around");
    parallel_for(1000, 1, [](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) const ProfileScope inner("inner");
    });
  }
  stop_profile();
  omp_set_num_threads(threads);
  ASSERT_EQ(stage_times().size(), 1u);
  EXPECT_EQ(stage_times().front().stage, "around");
}

TEST(Profile, TheTraceIsOfTheFormatThatChromeReads) {
  start_profile();
  outer();
  stop_profile();
  const auto trace = nlohmann::json::parse(chrome_trace());
  ASSERT_EQ(trace["traceEvents"].size(), 3u);
  for (const auto& event : trace["traceEvents"]) {
    EXPECT_EQ(event["ph"], "X");
    EXPECT_GE(event["ts"].get<double>(), 0.0);
    EXPECT_GT(event["dur"].get<double>(), 0.0);
  }
}

}  // namespace
}  // namespace qlora
