// The model's own files lie under a run that keeps its base on disk: what happens to them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class ChangedBase : public testing::Test {
 protected:
  // Long enough to be met on its way; blocks are read from the model's file in each step.
  ChangedBase() {
    recipes::Recipe recipe = tiny_recipe(dir.path());
    recipe.quantization = {};
    recipe.quantization.method = "none";
    recipe.train.max_steps = 150;
    recipe.train.save_every = 100;
    recipe.train.threads = 1;
    write_recipe_file(dir, recipe);
  }

  TempDir dir;
  const std::string weights = dir / "model/model.safetensors";
};

TEST_F(ChangedBase, EndsTheRunAtItsNextSaveWhichIsNotMade) {
  ChildProcess run(QLORA_PROGRAM, {"train", dir / "recipe.yaml", "--set", "model.device_map=disk"},
                   dir.path());
  ASSERT_TRUE(run.wait_until([&] { return steps_logged(dir, "run") >= 2; }));
  std::fstream file(weights, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-2, std::ios::end);
  file.write("\0\0", 2);
  file.close();
  const Finished ended = run.wait();
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_THAT(ended.err, HasSubstr("model.safetensors was changed while it was in use"));
  EXPECT_FALSE(fs::exists(dir / "run/checkpoint-000100"));
  EXPECT_FALSE(fs::exists(dir / "run/adapter"));
}

TEST_F(ChangedBase, ThatBecomesShorterEndsTheRunWithItsName) {
  ChildProcess run(QLORA_PROGRAM, {"train", dir / "recipe.yaml", "--set", "model.device_map=disk"},
                   dir.path());
  ASSERT_TRUE(run.wait_until([&] { return steps_logged(dir, "run") >= 2; }));
  fs::resize_file(weights, 100);
  const Finished ended = run.wait();
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_THAT(ended.err, HasSubstr("model.safetensors became shorter"));
}

}  // namespace
}  // namespace qlora::test
