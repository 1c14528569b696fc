// Who may write to the directory of a run, and what it may do there.
#include "recipes/run_files/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_adapter.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/two_step_run.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using ::testing::HasSubstr;

constexpr const char* kRecipe = "/recipe.resolved.yaml";

// The bytes of every file but the log, by path.
std::map<std::string, std::string> contents(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file() && entry.path().filename() != "log.txt")
      files[entry.path().string()] = test::read_file(entry.path());
  return files;
}

class RunDirectories : public test::TwoStepRun {
 protected:
  void remove_checkpoints() const {
    for (const int64_t step : trainer::checkpoint_steps(recipe.output.dir))
      fs::remove_all(recipe.output.dir + "/" + trainer::checkpoint_name(step));
  }
  // ConfigError with `part` in it, and no file of the run changed.
  void expect_refused(const Recipe& other, const std::string& part) {
    const auto before = contents(recipe.output.dir);
    try {
      RunDirectory run(other);
      ADD_FAILURE() << "was not refused";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(part));
    }
    EXPECT_EQ(contents(recipe.output.dir), before);
  }
};

TEST_F(RunDirectories, ANewOneBeginsFromTheStart) {
  recipe.output.dir = dir / "not/there/yet";
  const RunDirectory run(recipe);
  EXPECT_TRUE(fs::is_directory(dir / "not/there/yet"));
  EXPECT_FALSE(run.checkpoint().has_value());
  EXPECT_EQ(run.file("metrics.jsonl"), dir / "not/there/yet/metrics.jsonl");
}

TEST_F(RunDirectories, AFileInItsPlaceIsRefused) {
  const std::string file = dir.write("file", "x");
  for (const std::string below : {"", "/run"}) {
    recipe.output.dir = file + below;
    EXPECT_THAT([&] { RunDirectory run(recipe); },
                testing::ThrowsMessage<ConfigError>(
                    HasSubstr("output.dir: " + file + " must be a directory, but is a file")));
  }
}

// The other run would take it for its own, and rotate or replace it.
TEST_F(RunDirectories, APlaceThatAnotherRunUsesIsRefused) {
  train();
  const std::string run = recipe.output.dir;
  for (const std::string name :
       {"checkpoint-000001", "checkpoint-000009", "adapter/mine", "base"}) {
    recipe.output.dir = run + "/" + name;
    EXPECT_THAT([&] { const RunDirectory inner(recipe); },
                testing::ThrowsMessage<ConfigError>(
                    testing::AllOf(HasSubstr("output.dir: "), HasSubstr("is a name that the run"))))
        << name;
  }
  EXPECT_FALSE(fs::exists(run + "/base"));
  recipe.output.dir = run + "/mine";
  EXPECT_NO_THROW(RunDirectory{recipe});
}

TEST_F(RunDirectories, APlaceWhereNoneCanBeMadeIsToldWithItsKey) {
  recipe.output.dir = "/proc/nowhere";
  EXPECT_THAT([&] { RunDirectory run(recipe); },
              testing::ThrowsMessage<IoError>(testing::StartsWith("output.dir: /proc/nowhere ")));
}

TEST_F(RunDirectories, WhileOneIsHeldASecondIsRefused) {
  {
    const RunDirectory first(recipe);
    expect_refused(recipe, recipe.output.dir);
    expect_refused(recipe, "another process");
    Recipe elsewhere = recipe;
    elsewhere.output.dir = dir / "elsewhere";
    EXPECT_NO_THROW(RunDirectory{elsewhere});
  }
  EXPECT_NO_THROW(RunDirectory{recipe});  // the lock ends with its holder
}

TEST_F(RunDirectories, ALockIsNotGivenUpByTheOneThatWasRefused) {
  const RunDirectory first(recipe);
  EXPECT_THROW(RunDirectory{recipe}, ConfigError);
  EXPECT_THROW(RunDirectory{recipe}, ConfigError);
}

TEST_F(RunDirectories, TheLockIsOnTheDirectoryWhateverItsPathIsCalled) {
  const RunDirectory first(recipe);
  fs::create_directory_symlink(recipe.output.dir, dir / "alias");
  Recipe alias = recipe;
  alias.output.dir = dir / "alias";
  EXPECT_THROW(RunDirectory{alias}, ConfigError);
}

TEST_F(RunDirectories, ForeignContentIsRefusedEvenWithOverwrite) {
  dir.write("run/thesis.txt", "precious");
  dir.write("run/checkpoint-000001/notes.txt", "precious too");
  for (const bool overwrite : {false, true}) {
    recipe.output.overwrite = overwrite;
    expect_refused(recipe, "not empty");
  }
}

TEST_F(RunDirectories, ALogOfAFailedStartIsNoContent) {
  dir.write("run/log.txt", "the model was not found\n");
  const RunDirectory run(recipe);
  EXPECT_THAT(test::read_file(run.file("log.txt")), HasSubstr("the model was not found"));
}

TEST_F(RunDirectories, TheResolvedRecipeReadsBackAsTheRecipeOfTheRun) {
  recipe.optim.lr = 1.0 / 3;
  train();
  const Recipe read = read_run_recipe(recipe.output.dir);
  recipe.model.dtype = "bfloat16";  // what auto came to
  EXPECT_EQ(write_recipe(read), write_recipe(recipe));
  EXPECT_EQ(read.optim.lr, 1.0 / 3);
}

TEST_F(RunDirectories, AMovedRunIsFoundWhereItIsNow) {
  train();
  fs::rename(recipe.output.dir, dir / "moved");
  EXPECT_EQ(read_run_recipe(dir / "moved/").output.dir, (fs::path(dir / "moved") / "").string());
  EXPECT_EQ(adapter_of_run(dir / "moved"), dir / "moved/adapter");
}

TEST_F(RunDirectories, TheSameRecipeGoesOnFromTheLastCheckpoint) {
  train();
  fs::remove_all(recipe.output.dir + "/adapter");
  const auto before = contents(recipe.output.dir);
  const RunDirectory run(recipe);
  EXPECT_FALSE(run.finished());
  EXPECT_EQ(run.checkpoint(), recipe.output.dir + "/checkpoint-000002");
  EXPECT_EQ(contents(recipe.output.dir), before);
}

TEST_F(RunDirectories, AFinishedRunIsNotTouchedWithOrWithoutItsCheckpoints) {
  train();
  const std::atomic<bool> never{false};
  for (const bool with_checkpoints : {true, false}) {
    if (!with_checkpoints) remove_checkpoints();
    const auto before = contents(recipe.output.dir);
    EXPECT_TRUE(RunDirectory(recipe).finished());
    EXPECT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
    EXPECT_EQ(contents(recipe.output.dir), before);
  }
}

TEST_F(RunDirectories, AnotherRecipeTakesNothingThatARunWrote) {
  train();
  remove_checkpoints();
  Recipe other = recipe;
  other.lora.rank = 8;
  expect_refused(other, "lora.rank: 4 -> 8");  // an adapter and metrics are left
  fs::remove_all(recipe.output.dir + "/adapter");
  expect_refused(other, "--overwrite");  // metrics
  const std::string metrics = recipe.output.dir + "/metrics.jsonl";
  fs::remove(metrics);
  for (const char* name : {"run/base/config.json", "run/checkpoint-000002/state.json",
                           "run/set-aside-1/adapter/adapter_config.json"}) {
    dir.write(name, "{}");
    expect_refused(other, "lora.rank");
    fs::remove_all(fs::path(dir / name).parent_path());
  }
  fs::remove_all(recipe.output.dir + "/set-aside-1");
  std::ofstream(metrics).close();  // a run that was ended before its first step
  fs::create_directory(recipe.output.dir + "/checkpoint-000001");
  const RunDirectory run(other);
  EXPECT_FALSE(run.checkpoint() || run.finished());
}

TEST_F(RunDirectories, TheRunsOwnRecipeKeepsNothingThatWasAskedOfOneStart) {
  recipe.output.overwrite = true;
  recipe.model.dtype = "auto";
  train();
  const Recipe kept = read_run_recipe(recipe.output.dir);
  EXPECT_FALSE(kept.output.overwrite) << "training its file again would remove the run";
  EXPECT_EQ(kept.train.resume, "auto");
  EXPECT_EQ(kept.model.dtype, "bfloat16") << "of the tiny model's file";
}

TEST_F(RunDirectories, WithoutACheckpointTheSameRecipeBeginsAgain) {
  train();
  remove_checkpoints();
  fs::remove_all(recipe.output.dir + "/adapter");
  const RunDirectory run(recipe);
  EXPECT_FALSE(run.checkpoint() || run.finished());
}

TEST_F(RunDirectories, AFinishedRunGoesOnWhenItIsMadeLongerAndKeepsWhatItHad) {
  train();
  const std::string adapter = "/adapter/adapter_model.safetensors";
  const std::string before = test::read_file(recipe.output.dir + adapter);
  recipe.train.max_steps = 3;
  recipe.train.on_extend = "rescale";
  const std::atomic<bool> never{false};
  ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  EXPECT_TRUE(test::read_file(recipe.output.dir + adapter) != before);
  EXPECT_TRUE(test::read_file(recipe.output.dir + "/set-aside-1" + adapter) == before);
  remove_checkpoints();
  recipe.train.max_steps = 4;
  expect_refused(recipe, "lora.from_adapter");
}

TEST_F(RunDirectories, ACheckpointCanBeNamed) {
  train();
  recipe.train.resume = recipe.output.dir + "/checkpoint-000001";
  EXPECT_EQ(RunDirectory(recipe).checkpoint(), recipe.train.resume);
  recipe.train.resume = recipe.output.dir + "/checkpoint-000009";
  expect_refused(recipe, "there is no checkpoint " + recipe.train.resume + "; " +
                             recipe.output.dir +
                             " holds: best, checkpoint-000001, checkpoint-000002; the newest");
}

TEST_F(RunDirectories, EveryFixedKeyThatDiffersIsNamed) {
  train();
  Recipe other = recipe;
  other.lora.rank = 8;
  other.optim.lr = 1e-4;
  expect_refused(other, "lora.rank: 4 -> 8");
  expect_refused(other, "optim.lr: 0.005 -> 0.0001");
}

TEST_F(RunDirectories, ResumeNeverRefusesARun) {
  train();
  recipe.train.resume = "never";
  expect_refused(recipe, "train.resume");
}

TEST_F(RunDirectories, ACheckpointOfNoRunIsAnError) {
  recipe.train.resume = dir / "elsewhere/checkpoint-000001";
  EXPECT_THAT([&] { RunDirectory run(recipe); },
              testing::ThrowsMessage<ConfigError>(HasSubstr("holds no run")));
}

TEST_F(RunDirectories, GoingBackSetsAsideWhatCameLater) {
  train();
  const auto before = contents(recipe.output.dir);
  recipe.train.resume = "checkpoint-000001";  // a name within the run
  const std::atomic<bool> never{false};
  ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  const std::string aside = recipe.output.dir + "/set-aside-1";
  for (const std::string part : {"/checkpoint-000002", "/adapter", "/metrics.jsonl"})
    for (const auto& [path, bytes] : before)
      if (path.starts_with(recipe.output.dir + part)) {
        EXPECT_EQ(test::read_file(aside + path.substr(recipe.output.dir.size())), bytes) << path;
        if (part != "/metrics.jsonl") {
          EXPECT_EQ(test::read_file(path), bytes) << path;  // the same again
        }
      }
  EXPECT_EQ(fs::read_symlink(recipe.output.dir + "/best"), "checkpoint-000002");
}

TEST_F(RunDirectories, ADamagedCheckpointIsPassedOverForTheOneBefore) {
  train();
  fs::remove_all(recipe.output.dir + "/adapter");
  const std::string state = recipe.output.dir + "/checkpoint-000002/optimizer.safetensors";
  fs::resize_file(state, fs::file_size(state) - 1);
  EXPECT_EQ(RunDirectory(recipe).checkpoint(), recipe.output.dir + "/checkpoint-000001");
  const std::atomic<bool> never{false};
  ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  EXPECT_TRUE(fs::exists(recipe.output.dir + "/set-aside-1/checkpoint-000002/state.json"));
  EXPECT_NO_THROW(trainer::verify_checkpoint(recipe.output.dir + "/checkpoint-000002"));
}

TEST_F(RunDirectories, WhereNoneIsWholeAndWhereTheNamedOneIsNotTheWayOutIsNamed) {
  train();
  fs::remove_all(recipe.output.dir + "/adapter");
  const std::string run = recipe.output.dir;
  fs::remove(run + "/checkpoint-000002/MANIFEST.json");
  recipe.train.resume = run + "/checkpoint-000002";
  EXPECT_THAT([&] { RunDirectory directory(recipe); },
              testing::ThrowsMessage<FormatError>(testing::AllOf(
                  HasSubstr("MANIFEST.json is missing"),
                  HasSubstr("qlora resume " + run + " --from " + run + "/checkpoint-000001"))));
  fs::remove(run + "/checkpoint-000001/state.json");
  recipe.train.resume = "auto";
  const auto before = contents(run);
  EXPECT_THAT([&] { RunDirectory directory(recipe); },
              testing::ThrowsMessage<FormatError>(
                  testing::AllOf(HasSubstr("state.json is missing"),
                                 HasSubstr("MANIFEST.json is missing"), HasSubstr("--overwrite"))));
  EXPECT_EQ(contents(run), before);
}

TEST_F(RunDirectories, WhatAKillLeftHalfMadeIsClearedAwayByTheNextRunAlone) {
  train();
  fs::remove_all(recipe.output.dir + "/adapter");
  dir.write("run/checkpoint-000003.partial-0123456789abcdef/state.json", "{}");
  dir.write("run/metrics.jsonl.partial-0123456789abcdef", "{}");
  dir.write("run/thesis.partial-0123456789abcdef", "mine");
  adapter_of_run(recipe.output.dir);
  EXPECT_TRUE(fs::exists(dir / "run/checkpoint-000003.partial-0123456789abcdef"));
  const RunDirectory run(recipe);
  EXPECT_FALSE(fs::exists(dir / "run/checkpoint-000003.partial-0123456789abcdef"));
  EXPECT_FALSE(fs::exists(dir / "run/metrics.jsonl.partial-0123456789abcdef"));
  EXPECT_TRUE(fs::exists(dir / "run/thesis.partial-0123456789abcdef"));
}

TEST_F(RunDirectories, AFileThatAKillLeftItsNameIsNoContent) {
  dir.write("run/nameless.partial-0123456789abcdef", "");
  const RunDirectory run(recipe);
  EXPECT_FALSE(fs::exists(dir / "run/nameless.partial-0123456789abcdef"));
}

TEST_F(RunDirectories, AReplacementThatAKillInterruptedGetsItsNameBack) {
  train();
  remove_checkpoints();
  fs::rename(dir / "run/adapter", dir / "run/adapter.before-replacement-0123456789abcdef");
  EXPECT_TRUE(RunDirectory(recipe).finished());
}

TEST_F(RunDirectories, CopiesThatAUserKeepsBesideARunsFilesStay) {
  train();
  const std::vector<std::string> own = {"adapter.before-replacement", "adapter.partial-2",
                                        "base.partial-20261201", "notes.before-replacement",
                                        "notes.before-replacement-0123456789abcdef"};
  for (const std::string& name : own) fs::copy(dir / "run/adapter", dir / ("run/" + name));
  dir.write("run/notes", "mine");
  EXPECT_TRUE(RunDirectory(recipe).finished());
  for (const std::string& name : own) EXPECT_TRUE(fs::exists(dir / ("run/" + name))) << name;
}

TEST_F(RunDirectories, OverwriteReplacesWhatARunWroteAndNothingElse) {
  train();
  dir.write("run/notes.txt", "mine");
  recipe.output.overwrite = true;
  recipe.train.max_steps = 1;
  const std::atomic<bool> never{false};
  ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  EXPECT_EQ(test::read_file(dir / "run/notes.txt"), "mine");
  EXPECT_TRUE(fs::exists(dir / "run/checkpoint-000001"));
  EXPECT_FALSE(fs::exists(dir / "run/checkpoint-000002"));
  EXPECT_EQ(read_run_recipe(recipe.output.dir).train.max_steps, 1);
}

TEST_F(RunDirectories, WhatTheNewRunReadsIsNotRemovedWithTheOldOne) {
  train();
  dir.write("run/base/config.json", "{}");
  fs::create_directory_symlink(dir / "run/base", dir / "link");
  fs::create_directory_symlink(dir.path(), dir / "run/set-aside-1");  // whatever it leads to
  recipe.output.overwrite = true;
  const auto expect_key_refused = [&](std::string& path, const std::string& within,
                                      const std::string& key) {
    const std::string before = std::exchange(path, dir / within);
    expect_refused(recipe, key + ": " + dir / within);
    path = before;
  };
  expect_key_refused(recipe.lora.from_adapter, "run/adapter", "lora.from_adapter");
  expect_key_refused(recipe.lora.from_adapter, "run/best/adapter", "lora.from_adapter");
  expect_key_refused(recipe.lora.from_adapter, "run/./set-aside-1/x", "lora.from_adapter");
  expect_key_refused(recipe.model.path, "run/base", "model.path");
  expect_key_refused(recipe.model.path, "link", "model.path");
  expect_key_refused(recipe.lora.loftq.original, "run/base", "lora.loftq.original");
  expect_key_refused(recipe.data.train[0].path, "run/samples.jsonl", "data.train");
  expect_key_refused(recipe.data.eval[0].path, "run/samples.jsonl", "data.eval");
  fs::create_directories(dir / "run/set-aside-2");
  dir.write("run/set-aside-2/rows.jsonl", "{}");
  fs::create_directories(dir / "of-links");
  fs::create_symlink(dir / "run/base/config.json", dir / "of-links/config.json");
  const auto expect_file_refused = [&](std::string& path, const std::string& given,
                                       const std::string& said) {
    const std::string before = std::exchange(path, dir / given);
    expect_refused(recipe, said);
    path = before;
  };
  for (const char* pattern : {"run/*/rows.jsonl", "*/set-aside-2/rows.jsonl"})
    expect_file_refused(recipe.data.train[0].path, pattern,
                        "data.train: " + dir / "run/set-aside-");
  expect_file_refused(recipe.model.path, "of-links", "model.path: " + dir / "of-links/config.json");
  recipe.data.chat_template = std::string(5000, 'x');
  EXPECT_NO_THROW(RunDirectory{recipe});
}

TEST_F(RunDirectories, WhatIsToGoOnIsNotOverwritten) {
  train();
  const auto before = contents(recipe.output.dir);
  recipe.output.overwrite = true;
  for (const std::string& named :
       {recipe.output.dir + "/checkpoint-000002", std::string("checkpoint-000002"), dir / "nope"}) {
    recipe.train.resume = named;
    expect_refused(recipe, "train.resume: the run is to go on from " + named);
    EXPECT_EQ(contents(recipe.output.dir), before);
  }
}

TEST_F(RunDirectories, WhatIsNoRunIsNamed) {
  for (const std::string& path : {dir / "model", dir / "absent"}) {
    try {
      read_run_recipe(path);
      ADD_FAILURE() << path;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path));
    }
  }
}

}  // namespace
}  // namespace qlora::recipes
