#include "trainer/step_profile.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace qlora::trainer
