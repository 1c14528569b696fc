// Runs from whose directory something was taken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/train_command.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/two_step_run.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

constexpr const char* kRecipe = "/recipe.resolved.yaml";

class ATakenFile : public test::TwoStepRun {
 protected:
  void interrupt() const {
    fs::remove_all(dir / "run/adapter");
    fs::remove(dir / "run/log.txt");
  }
  // What a start is refused with.
  std::string refusal() const {
    try {
      RunDirectory run(recipe);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "was not refused";
  }
  std::string said() const {
    log::close_file();
    return test::read_file(dir / "run/log.txt");
  }
};

// The recipe of a run that has whole checkpoints is missing, cut off, or of another program.
TEST_F(ATakenFile, ALostRecipeCostsNoCheckpoint) {
  train();
  interrupt();
  const std::string run = recipe.output.dir;
  const std::string way =
      "qlora train RECIPE --set output.dir=" + run + " --resume " + run + "/checkpoint-000002";
  for (const char* text : {"", "model: {nonsense: 1}\n", "absent"}) {
    SCOPED_TRACE(text);
    recipe.train.resume = "auto";
    if (std::string(text) == "absent")
      fs::remove(run + kRecipe);
    else
      dir.write("run/recipe.resolved.yaml", text);
    for (const bool overwrite : {false, true}) {
      recipe.output.overwrite = overwrite;
      EXPECT_THAT(refusal(), AllOf(HasSubstr(way), Not(HasSubstr("empty it"))));
    }
    recipe.output.overwrite = false;
    EXPECT_THAT([&] { read_run_recipe(run); }, ThrowsMessage<ConfigError>(HasSubstr(way)));
    recipe.train.resume = run + "/checkpoint-000002";
    {
      const RunDirectory given(recipe);
      EXPECT_EQ(given.checkpoint(), run + "/checkpoint-000002");
      given.begin(recipe, 2);
    }
    EXPECT_THAT(said(), HasSubstr("recipe.resolved.yaml is missing or cannot be read"));
    EXPECT_EQ(read_run_recipe(run).train.max_steps, 2);
  }
}

TEST_F(ATakenFile, WithALostRecipeTheFormOfTheAdapterIsStillCompared) {
  train();
  interrupt();
  fs::remove(recipe.output.dir + kRecipe);
  recipe.train.resume = recipe.output.dir + "/checkpoint-000002";
  recipe.lora.rank = 8;
  EXPECT_THAT(refusal(), HasSubstr("is a checkpoint of a run of another recipe"));
}

TEST_F(ATakenFile, WhereNoCheckpointIsWholeNothingAdvisesToEmptyTheDirectory) {
  train();
  for (const char* name : {"checkpoint-000001", "checkpoint-000002"})
    fs::remove_all(recipe.output.dir + "/" + name);
  fs::remove(recipe.output.dir + kRecipe);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("what a run may have written; choose another directory"),
                               Not(HasSubstr("empty it"))));
}

TEST_F(ATakenFile, OfARunWithoutACheckpointIsToldThatItBeginsAnew) {
  train();
  interrupt();
  EXPECT_TRUE(RunDirectory(recipe).checkpoint().has_value());
  EXPECT_THAT(said(), Not(HasSubstr("begins anew")));
  for (const char* name : {"checkpoint-000001", "checkpoint-000002"})
    fs::remove_all(recipe.output.dir + "/" + name);
  EXPECT_FALSE(RunDirectory(recipe).checkpoint().has_value());
  EXPECT_THAT(said(), HasSubstr("holds no checkpoint to go on from: the run begins anew"));
}

TEST_F(ATakenFile, AMovedBaseIsGivenByTheCommandsThatAreNamed) {
  train();
  interrupt();
  fs::rename(dir / "model", dir / "moved");
  const std::string run = recipe.output.dir;
  const std::atomic<bool> never{false};
  EXPECT_THAT(
      [&] { finetune(read_run_recipe(run), never); },
      ThrowsMessage<ConfigError>(HasSubstr("If the base of the run lies elsewhere now: " +
                                           train_command(run) + " --set model.path=/PATH")));
  ModelChoice choice;
  choice.run_dir = run;
  EXPECT_THAT(
      [&] { open_model(choice); },
      ThrowsMessage<ConfigError>(HasSubstr("give in place of " + run + ": --model PATH --adapter " +
                                           run + "/checkpoint-000002/adapter")));
  // As they say.
  const Recipe found =
      read_recipe(run + kRecipe, {"output.dir=" + run, "model.path=" + dir / "moved"});
  EXPECT_EQ(finetune(found, never), trainer::Outcome::kFinished);
  choice.run_dir.clear();
  choice.model = dir / "moved";
  choice.adapter = run + "/checkpoint-000002/adapter";
  EXPECT_NO_THROW(open_model(choice));
}

TEST_F(ATakenFile, OfADirectoryThatGoesWhileItsRunTrainsIsMadeAnew) {
  train();
  RunDirectory run(recipe);
  run.begin(recipe, 2);
  const std::string recorded = test::read_file(recipe.output.dir + kRecipe);
  run.stay(recipe);
  EXPECT_THAT(test::read_file(run.file("log.txt")), Not(HasSubstr("made anew")));
  fs::remove_all(recipe.output.dir);
  run.stay(recipe);
  EXPECT_EQ(test::read_file(recipe.output.dir + kRecipe), recorded);
  EXPECT_THAT(test::read_file(run.file("log.txt")), HasSubstr("was removed or moved away"));
  EXPECT_THAT([&] { RunDirectory second(recipe); },
              ThrowsMessage<ConfigError>(HasSubstr("another process")));
  fs::remove(recipe.output.dir + kRecipe);
  run.stay(recipe);
  EXPECT_EQ(test::read_file(recipe.output.dir + kRecipe), recorded);
}

TEST_F(ATakenFile, OfADirectoryInWhosePlaceAnotherLiesNothingIsWritten) {
  train();
  RunDirectory run(recipe);
  run.begin(recipe, 2);
  const std::string moved = dir / "moved";
  fs::rename(recipe.output.dir, moved);
  dir.write("run/recipe.resolved.yaml", "another run's");
  EXPECT_THAT([&] { run.stay(recipe); },
              ThrowsMessage<ConfigError>(HasSubstr("another directory lies in its place")));
  EXPECT_EQ(test::read_file(recipe.output.dir + kRecipe), "another run's");
  EXPECT_EQ(std::distance(fs::directory_iterator(recipe.output.dir), {}), 1);
  fs::remove(recipe.output.dir + kRecipe);
  {
    recipe.train.max_steps = 1;
    const RunDirectory other(recipe);  // which has written nothing yet
    EXPECT_THAT([&] { run.stay(recipe); },
                ThrowsMessage<ConfigError>(HasSubstr("another process")));
  }
  fs::remove_all(recipe.output.dir);
  fs::rename(moved, recipe.output.dir);  // and back
  EXPECT_NO_THROW(run.stay(recipe));
}

}  // namespace
}  // namespace qlora::recipes
