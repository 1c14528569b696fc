// Runs whose files cannot be written to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class AnUnwritableRun : public testing::Test {
 protected:
  void TearDown() override { log::close_file(); }

  // Two steps, with a checkpoint after each.
  void train() {
    recipe.train.max_steps = 2;
    recipe.train.save_every = 1;
    const std::atomic<bool> never{false};
    ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  }

  test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
};

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
