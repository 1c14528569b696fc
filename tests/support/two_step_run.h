// A run of two steps with a checkpoint after each, for tests of what its directory holds.
#pragma once

#include <gtest/gtest.h>

#include <atomic>

#include "base/log.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::test {

class TwoStepRun : public testing::Test {
 protected:
  void TearDown() override { log::close_file(); }

  void train() {
    recipe.train.max_steps = 2;
    recipe.train.save_every = 1;
    const std::atomic<bool> never{false};
    ASSERT_EQ(recipes::finetune(recipe, never), trainer::Outcome::kFinished);
  }

  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
};

}  // namespace qlora::test
