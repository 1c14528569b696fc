// Which checkpoints a run leaves: the newest of train.save_total_limit, and the best one, of whose
// adapter it says at the end how it is exported.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "base/log.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
using testing::HasSubstr;
using testing::Not;
using Steps = std::vector<int64_t>;

// Learns nothing, so that the first evaluation is the best; saves after each of its six steps.
class KeptCheckpoints : public testing::Test {
 protected:
  KeptCheckpoints() {
    recipe.optim.lr = 0;
    recipe.train.save_every = 1;
    recipe.train.save_total_limit = 3;
  }
  void TearDown() override { log::close_file(); }

  Steps left_by_run() {
    const std::atomic<bool> never{false};
    EXPECT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
    return trainer::checkpoint_steps(recipe.output.dir);
  }
  std::string best() const {
    return std::filesystem::read_symlink(recipe.output.dir + "/best").string();
  }

  std::string said() const {
    log::close_file();
    return test::read_file(recipe.output.dir + "/log.txt");
  }

  test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
};

TEST_F(KeptCheckpoints, WithoutAnEvaluationTheNewestAreLeft) {
  recipe.data.eval.clear();
  EXPECT_EQ(left_by_run(), (Steps{4, 5, 6}));
}

TEST_F(KeptCheckpoints, WhereTheLastIsTheBestNoOtherIsLeftBesideTheNewest) {
  recipe.train.eval_every = 0;  // at the end alone
  EXPECT_EQ(left_by_run(), (Steps{4, 5, 6}));
  EXPECT_EQ(best(), "checkpoint-000006");
  EXPECT_THAT(said(), Not(HasSubstr("lowest evaluation loss")));
}

TEST_F(KeptCheckpoints, ABestThatIsAmongTheNewestCountsAsOneOfThem) {
  recipe.train.eval_every = 5;
  EXPECT_EQ(left_by_run(), (Steps{4, 5, 6}));
  EXPECT_EQ(best(), "checkpoint-000005");
  EXPECT_THAT(said(), HasSubstr("export of step 5, which had the lowest evaluation loss ("));
  EXPECT_THAT(said(), HasSubstr("qlora export " + recipe.output.dir +
                                " --checkpoint best --format merged"));
}

TEST_F(KeptCheckpoints, AnOlderBestIsLeftBesideThem) {
  recipe.train.eval_every = 2;
  EXPECT_EQ(left_by_run(), (Steps{2, 4, 5, 6}));
  EXPECT_EQ(best(), "checkpoint-000002");
}

TEST_F(KeptCheckpoints, ARunThatIsStoppedEarlyLeavesTheNewestAndTheBest) {
  recipe.train.eval_every = 1;
  recipe.train.early_stopping_patience = 4;
  recipe.train.save_total_limit = 2;
  EXPECT_EQ(left_by_run(), (Steps{1, 4, 5}));
  EXPECT_EQ(best(), "checkpoint-000001");
}

TEST_F(KeptCheckpoints, ARunThatGoesOnRemovesWhatTheLimitNoLongerCovers) {
  recipe.train.eval_every = 0;
  recipe.train.max_steps = 3;
  EXPECT_EQ(left_by_run(), (Steps{1, 2, 3}));
  EXPECT_EQ(best(), "checkpoint-000003");
  recipe.train.on_extend = "rescale";
  recipe.train.max_steps = 7;
  EXPECT_EQ(left_by_run(), (Steps{3, 5, 6, 7}));
  EXPECT_EQ(best(), "checkpoint-000003");
}

}  // namespace
}  // namespace qlora::recipes
