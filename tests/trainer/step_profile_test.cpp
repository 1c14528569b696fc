#include "trainer/step_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/killed_work.h"
#include "tests/support/temp_dir.h"

namespace qlora::trainer {
namespace {

TEST(StepProfile, AKillLeavesTheEarlierTraceOrTheNewOne) {
  const test::TempDir dir;
  const std::string trace = dir / "profile.json";
  const auto kills = test::kill_at_each_call([&] { dir.write("profile.json", "{}"); },
                                             [&] {
                                               StepProfile profile(trace, 1, at::kCPU);
                                               for (int i = 0; i < 3; ++i) profile.after_step();
                                             },
                                             [&] {
                                               const std::string text = test::read_file(trace);
                                               EXPECT_TRUE(nlohmann::json::accept(text)) << text;
                                             });
  EXPECT_GE(kills, 4);  // write, fsync, rename, fsync of the directory
  const auto last = nlohmann::json::parse(test::read_file(trace));
  EXPECT_TRUE(last.contains("traceEvents"));
}

std::string said_at_the_end(const std::string& trace, int64_t wanted, int made) {
  testing::internal::CaptureStderr();
  StepProfile profile(trace, wanted, at::kCPU);
  for (int i = 0; i < made; ++i) profile.after_step();
  profile.at_the_end();
  return testing::internal::GetCapturedStderr();
}

TEST(StepProfile, ARunThatEndsEarlierWritesWhatThereIs) {
  const test::TempDir dir;
  const std::string trace = dir / "profile.json";
  EXPECT_THAT(said_at_the_end(trace, 4, 5), testing::HasSubstr("profile of 3 steps"));
  EXPECT_TRUE(nlohmann::json::parse(test::read_file(trace)).contains("traceEvents"));
}

TEST(StepProfile, WhatIsCompleteIsWrittenOnce) {
  const test::TempDir dir;
  const std::string said = said_at_the_end(dir / "profile.json", 2, 7);
  const size_t first = said.find("profile of 2 steps");
  ASSERT_NE(first, std::string::npos) << said;
  EXPECT_EQ(said.find("profile of", first + 1), std::string::npos) << said;
}

TEST(StepProfile, OfTooFewStepsItSaysWhyThereIsNone) {
  const test::TempDir dir;
  const std::string trace = dir / "profile.json";
  for (const int made : {0, 1, 2})
    EXPECT_THAT(
        said_at_the_end(trace, 4, made),
        testing::HasSubstr("train.profile_steps: nothing is profiled: the first 2 steps are "
                           "left out, and " +
                           std::to_string(made)));
  EXPECT_FALSE(std::filesystem::exists(trace));
  EXPECT_EQ(said_at_the_end(trace, 0, 9), "");
}

}  // namespace
}  // namespace qlora::trainer
