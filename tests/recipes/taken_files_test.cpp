// Runs from whose directory something was taken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "recipes/run_files/run_directory.h"
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

class ATakenFile : public test::TwoStepRun {};

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

}  // namespace
}  // namespace qlora::recipes
