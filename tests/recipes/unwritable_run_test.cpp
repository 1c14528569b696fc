// Runs whose files cannot be written to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "recipes/run_files/run_directory.h"
#include "tests/support/two_step_run.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class AnUnwritableRun : public test::TwoStepRun {};

TEST_F(AnUnwritableRun, MetricsThatCannotBeWrittenAreToldBeforeAnythingIsMoved) {
  train();
  for (const char* name : {"metrics.jsonl", "samples.jsonl"}) {
    fs::remove(dir / (std::string("run/") + name));
    fs::create_directory(dir / (std::string("run/") + name));
    EXPECT_TRUE(RunDirectory(recipe).finished()) << "a finished run writes nothing";
    Recipe longer = recipe;
    longer.train.max_steps = 3;
    EXPECT_THAT(
        [&] { RunDirectory run(longer); },
        testing::ThrowsMessage<IoError>(HasSubstr(std::string(name) + " cannot be written")));
    EXPECT_TRUE(fs::exists(dir / "run/adapter") && !fs::exists(dir / "run/set-aside-1"));
    longer.output.overwrite = true;  // which puts it away
    EXPECT_NO_THROW(RunDirectory{longer});
    fs::remove(dir / (std::string("run/") + name));
  }
}

TEST_F(AnUnwritableRun, ALogThatCannotBeWrittenIsToldByItsPath) {
  fs::create_directories(dir / "run/log.txt");
  EXPECT_THAT([&] { RunDirectory run(recipe); },
              testing::ThrowsMessage<IoError>(HasSubstr("run/log.txt cannot be written")));
}

}  // namespace
}  // namespace qlora::recipes
