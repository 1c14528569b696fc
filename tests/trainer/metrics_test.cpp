// What becomes of metrics.jsonl when a run goes on.
#include "trainer/metrics.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/killed_work.h"
#include "tests/support/temp_dir.h"

namespace qlora::trainer {
namespace {
using test::TempDir;

constexpr const char* kKept =
    "{\"step\":1,\"loss\":4}\n{\"step\":1,\"eval_loss\":3}\n{\"step\":2}\n";

std::string lines_of(const std::string& text, int64_t last_step) {
  const TempDir dir;
  const std::string path = dir.write("metrics.jsonl", text);
  const MetricsLog log(path, last_step);
  return test::read_file(path);
}

TEST(MetricsLog, KeepsTheLinesOfTheStepsThatWereSaved) {
  EXPECT_EQ(lines_of(kKept, 2), kKept);
  EXPECT_EQ(lines_of(std::string(kKept) + "{\"step\":3}\n{\"step\":3,\"eval_loss\":1}\n", 2),
            kKept);
  EXPECT_EQ(lines_of(kKept, 0), "");
}

TEST(MetricsLog, ALineThatWasCutOffGoesAndOneThatLacksItsEndGetsIt) {
  EXPECT_EQ(lines_of(std::string(kKept) + "{\"step\":2,\"eval_lo", 2), kKept);
  EXPECT_EQ(lines_of(std::string(kKept).substr(0, std::string(kKept).size() - 1), 2), kKept);
}

TEST(MetricsLog, LinesWithoutAStepAreNobodysToRemove) {
  const std::string noted = std::string(kKept) + "{\"step\":\"a note\"}\n{\"note\":1}\n";
  EXPECT_EQ(lines_of(noted, 2), noted);
}

TEST(MetricsLog, AFileThatNeedsNoCutStaysTheSameFile) {
  const TempDir dir;
  const std::string path = dir.write("metrics.jsonl", kKept);
  struct stat before {
  }, after{};
  stat(path.c_str(), &before);
  MetricsLog log(path, 2);
  log.write_evaluation(2, 0.5, 10, 1.0);
  stat(path.c_str(), &after);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_TRUE(
      test::read_file(path).starts_with(std::string(kKept) + "{\"step\":2,\"eval_loss\":0.5"));
}

TEST(MetricsLog, PairsOfAnswersHaveTheirOwnKeys) {
  const TempDir dir;
  const std::string path = dir / "metrics.jsonl";
  MetricsLog log(path, 0);
  StepMetrics metrics;
  metrics.step = 1;
  metrics.step_seconds = 1;
  metrics.preference =
      PreferenceMetrics{.chosen_reward = 0.5, .rejected_reward = -0.25, .accuracy = 1};
  log.write(metrics);
  log.write_evaluation(1, 0.5, 10, 1.0, metrics.preference);
  const std::string text = test::read_file(path);
  for (const char* key :
       {"\"rewards_chosen\":0.5", "\"rewards_rejected\":-0.25", "\"rewards_margin\":0.75",
        "\"rewards_accuracy\":1.0", "\"logps_chosen\":0.0", "\"eval_rewards_margin\":0.75"})
    EXPECT_NE(text.find(key), std::string::npos) << key;
  EXPECT_EQ(text.find("\"nll\""), std::string::npos);
}

TEST(MetricsLog, AKillAtAnyCallLosesNoLineOfTheResumedHistory) {
  const TempDir dir;
  const std::string path = dir / "metrics.jsonl";
  const auto kills = test::kill_at_each_call(
      [&] { dir.write("metrics.jsonl", std::string(kKept) + "{\"step\":3}\n"); },
      [&] {
        MetricsLog log(path, 2);
        StepMetrics metrics;
        metrics.step = 3;
        log.write(metrics);
        log.sync();
      },
      [&] { EXPECT_TRUE(test::read_file(path).starts_with(kKept)) << test::read_file(path); });
  EXPECT_GE(kills, 6);
}

}  // namespace
}  // namespace qlora::trainer
