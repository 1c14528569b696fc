// Commands that read a run while it goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <stop_token>
#include <system_error>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// Two checkpoints, and no adapter yet.
class ALiveRun : public testing::Test {
 protected:
  void SetUp() override {
    recipe.train.max_steps = 2;
    recipe.train.save_every = 1;
    const std::atomic<bool> never{false};
    ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
    fs::remove_all(dir / "run/adapter");
    choice.run_dir = recipe.output.dir;
    choice.threads = 1;
  }
  void TearDown() override { log::close_file(); }

  test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  ModelChoice choice;
};

TEST_F(ALiveRun, WhoseCheckpointGoesWhileTheBaseIsReadIsReadByTheNewestThatIsThere) {
  const at::Tensor second = open_model(choice).adapters->values().clone();
  choice.before_loading = [&](const Recipe&, const BaseText&) {
    fs::rename(dir / "run/checkpoint-000002",
               dir / "run/checkpoint-000002.partial-0123456789abcdef");
  };
  const at::Tensor found = open_model(choice).adapters->values().clone();
  choice.before_loading = {};
  const at::Tensor first = open_model(choice).adapters->values().clone();
  EXPECT_TRUE(at::equal(found, first));
  EXPECT_FALSE(at::equal(found, second));
}

TEST_F(ALiveRun, WithoutAnyCheckpointLeftHasNoAdapterYet) {
  choice.before_loading = [&](const Recipe&, const BaseText&) {
    for (const char* name : {"run/checkpoint-000001", "run/checkpoint-000002"})
      fs::remove_all(dir / name);
  };
  EXPECT_THAT([&] { open_model(choice); },
              testing::ThrowsMessage<ConfigError>(testing::HasSubstr("has no adapter yet")));
}

// Somebody's comes while steps are taken; where the run was done before, a longer one is tried.
TEST_F(ALiveRun, KeepsAnAdapterThatSomebodyPutsIntoItsPlace) {
  recipe.output.overwrite = true;
  recipe.train.save_every = 0;
  recipe.train.threads = 1;
  const std::atomic<bool> never{false};
  bool in_time = false;
  for (recipe.train.max_steps = 300; !in_time && recipe.train.max_steps < 100'000;
       recipe.train.max_steps *= 4) {
    fs::remove_all(dir / "run");
    dir.write("theirs/notes.txt", "mine");
    std::jthread somebody([&](const std::stop_token& run_has_ended) {
      while (!run_has_ended.stop_requested() && !fs::exists(dir / "run/metrics.jsonl"))
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::error_code is_taken;  // by the adapter of the run's end
      fs::rename(dir / "theirs", dir / "run/adapter", is_taken);
      in_time = !is_taken;
    });
    ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
    somebody.request_stop();
    somebody.join();
  }
  ASSERT_TRUE(in_time);
  EXPECT_FALSE(fs::exists(dir / "run/adapter/notes.txt"));
  EXPECT_TRUE(fs::exists(dir / "run/adapter/adapter_config.json"));
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/adapter/notes.txt"), "mine");
}

// What is wrong with an adapter that is there is told, and no other is looked for.
TEST_F(ALiveRun, WhoseAdapterIsDamagedSaysSo) {
  choice.before_loading = [&](const Recipe&, const BaseText&) {
    dir.write("run/checkpoint-000002/adapter/adapter_model.safetensors", "x");
  };
  EXPECT_THROW(open_model(choice), FormatError);
}

}  // namespace
}  // namespace qlora::recipes
