// The model's own files lie under a run that keeps its base on disk: what happens to them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/safetensors.h"
#include "tests/cli/program.h"
#include "trainer/checkpoint.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class ChangedBase : public testing::Test {
 protected:
  // It ends by what the test does alone: its own steps take minutes, and only a stop makes it save.
  // Blocks are read from the model's file in each step.
  ChangedBase() {
    recipes::Recipe recipe = tiny_recipe(dir.path());
    recipe.quantization = {};
    recipe.quantization.method = "none";
    recipe.train.max_steps = 100'000;
    recipe.train.save_every = 0;
    recipe.train.threads = 1;
    write_recipe_file(dir, recipe);
  }

  // Overwrites the first numbers of a matrix that is read from the file in each step.
  void change_a_matrix() const {
    const io::TensorFile tensors = io::read_safetensors(weights);
    const auto matrix = tensors.at("model.layers.0.mlp.down_proj.weight").bytes;
    const auto last = tensors.tensors.back().bytes;
    const auto to_end = last.data() + last.size() - matrix.data();
    std::fstream file(weights, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-to_end, std::ios::end);
    file.write("\0\0\0\0", 4);
  }

  TempDir dir;
  const std::string weights = dir / "model/model.safetensors";
};

TEST_F(ChangedBase, EndsTheRunAtItsNextSaveWhichIsNotMade) {
  ChildProcess run(QLORA_PROGRAM, {"train", dir / "recipe.yaml", "--set", "model.device_map=disk"},
                   dir.path());
  ASSERT_TRUE(run.wait_until([&] { return steps_logged(dir, "run") >= 2; }));
  change_a_matrix();
  run.send(SIGTERM);
  const Finished ended = run.wait();
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_THAT(ended.err, HasSubstr("model.safetensors was changed while it was in use"));
  EXPECT_TRUE(trainer::checkpoint_steps(dir / "run").empty());
  EXPECT_FALSE(fs::exists(dir / "run/adapter"));
}

// As what keeps old files from being purged does.
TEST_F(ChangedBase, OfWhichTheTimeAloneIsAnotherIsTheSame) {
  ChildProcess run(QLORA_PROGRAM, {"train", dir / "recipe.yaml", "--set", "model.device_map=disk"},
                   dir.path());
  ASSERT_TRUE(run.wait_until([&] { return steps_logged(dir, "run") >= 2; }));
  fs::last_write_time(weights, fs::last_write_time(weights) + std::chrono::seconds(1));
  run.send(SIGTERM);
  const Finished ended = run.wait();
  EXPECT_EQ(ended.exit_code, 130) << ended.err;
  EXPECT_FALSE(trainer::checkpoint_steps(dir / "run").empty());
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
