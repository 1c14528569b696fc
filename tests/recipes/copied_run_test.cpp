// Runs whose directory was copied without its links, copied in part, or stands on a disk that is
// not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "tests/support/temp_dir.h"
#include "tests/support/two_step_run.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using ::testing::HasSubstr;

class CopiedRuns : public test::TwoStepRun {
 protected:
  std::string run(const std::string& name) const { return recipe.output.dir + "/" + name; }

  // As `cp -L` copies a link.
  void make_best_a_copy() {
    fs::copy(run("checkpoint-000001"), run("copy"), fs::copy_options::recursive);
    fs::remove(run("best"));
    fs::rename(run("copy"), run("best"));
  }
};

TEST_F(CopiedRuns, ABestThatIsNoLinkIsSetAsideBeforeTheRunGoesOn) {
  train();
  make_best_a_copy();
  recipe.train.max_steps = 3;
  recipe.train.on_extend = "rescale";
  const std::atomic<bool> never{false};
  EXPECT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  EXPECT_NO_THROW(trainer::verify_checkpoint(run("set-aside-1/best")));
  EXPECT_FALSE(fs::is_directory(fs::symlink_status(run("best"))));
}

TEST_F(CopiedRuns, ABestThatIsNoLinkIsOfValue) {
  train();
  make_best_a_copy();
  for (const char* name : {"adapter", "checkpoint-000001", "checkpoint-000002", "metrics.jsonl"})
    fs::remove_all(run(name));
  recipe.lora.rank += 1;
  EXPECT_THAT([&] { const RunDirectory other(recipe); },
              testing::ThrowsMessage<ConfigError>(HasSubstr("lora.rank")));
}

TEST_F(CopiedRuns, AnAdapterWithoutTensorsIsWrittenAnewFromTheLastCheckpoint) {
  train();
  const std::string tensors = test::read_file(run("adapter/adapter_model.safetensors"));
  fs::remove(run("adapter/adapter_model.safetensors"));
  const std::atomic<bool> never{false};
  EXPECT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  EXPECT_EQ(test::read_file(run("adapter/adapter_model.safetensors")), tensors);
  EXPECT_TRUE(fs::exists(run("set-aside-1/adapter/adapter_config.json")));
}

TEST_F(CopiedRuns, AnAdapterOnADiskThatIsNotThereIsToldAtTheStart) {
  train();
  fs::rename(run("adapter"), dir / "elsewhere");
  fs::create_directory_symlink(dir / "missing", run("adapter"));
  EXPECT_THAT([&] { const RunDirectory again(recipe); },
              testing::ThrowsMessage<ConfigError>(HasSubstr("is its disk mounted")));
  EXPECT_TRUE(fs::is_symlink(run("adapter")));
}

// The same steps are taken again, but they are other steps: of other rows.
TEST_F(CopiedRuns, LinesOfAStartThatSavedNothingAreKeptWhereItsRowsWereOthers) {
  train();
  for (const char* name : {"adapter", "best", "checkpoint-000001", "checkpoint-000002"})
    fs::remove_all(run(name));
  const std::string lines = test::read_file(run("metrics.jsonl"));
  const auto begin = [&](const std::string& rows) { RunDirectory(recipe).begin(recipe, 0, rows); };
  fs::remove(run("last_save.json"));
  begin("those");
  const auto write_lines = [&] { dir.write("run/metrics.jsonl", lines); };
  fs::remove_all(run("set-aside-1"));
  write_lines();
  begin("those");
  EXPECT_FALSE(fs::exists(run("set-aside-1")));
  write_lines();
  begin("others");
  EXPECT_EQ(test::read_file(run("set-aside-1/metrics.jsonl")), lines);
}

}  // namespace
}  // namespace qlora::recipes
