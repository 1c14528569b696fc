#include "recipes/run/training_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/error.h"
#include "base/stop.h"

namespace qlora::recipes {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;

// Of examples of two tokens, four a step.
data::Loader loader_of(int64_t examples, bool packing) {
  data::Example example;
  example.tokens = {1, 2};
  example.supervised = {0, 1};
  return data::Loader(std::vector<data::Example>(static_cast<size_t>(examples), example),
                      {.sequence_length = 2, .packing = packing, .micro_batch_size = 4});
}

Recipe of_epochs(double epochs) {
  Recipe recipe;
  recipe.train.epochs = epochs;
  return recipe;
}

// Three and ten steps an epoch, as math.ceil(num_train_epochs * num_update_steps_per_epoch).
TEST(TotalSteps, APartOfAnEpochIsRoundedUpAsByTransformers) {
  for (const bool packing : {false, true}) {
    const data::Loader three = loader_of(11, packing), ten = loader_of(40, packing);
    for (const auto& [epochs, steps] : std::vector<std::pair<double, int64_t>>{
             {1e-9, 1}, {0.5, 2}, {1, 3}, {1.4, 5}, {1.6, 5}, {2, 6}, {2.01, 7}, {7, 21}})
      EXPECT_EQ(total_steps(of_epochs(epochs), three, 0), steps) << epochs;
    // Not one more where the part alone, 0.30000000000000004 of 1.3, is above its decimals.
    for (const auto& [epochs, steps] :
         std::vector<std::pair<double, int64_t>>{{1.3, 13}, {1.1, 11}, {0.3, 3}, {2.9, 29}})
      EXPECT_EQ(total_steps(of_epochs(epochs), ten, 0), steps) << epochs;
  }
}

TEST(TotalSteps, ARunThatRoundedToTheNearestKeepsItsSteps) {
  const data::Loader loader = loader_of(12, true);
  EXPECT_EQ(total_steps(of_epochs(1.4), loader, 4), 4);
  EXPECT_EQ(total_steps(of_epochs(1.4), loader, 5), 5);
  EXPECT_EQ(total_steps(of_epochs(2.4), loader, 4), 8);  // is to be longer
}

TEST(TotalSteps, EpochsThatAreAlikeAreNotCountedOneByOne) {
  EXPECT_EQ(total_steps(of_epochs(1e6), loader_of(12, false), 0), 3'000'000);
  EXPECT_THAT([] { total_steps(of_epochs(1e6), loader_of(4004, false), 0); },
              ThrowsMessage<ConfigError>(HasSubstr("train.epochs: 1000000 epochs of these rows are "
                                                   "1001000000 steps, and at most 1000000000")));
}

TEST(TotalSteps, CountingThemIsLeftWhenAStopIsWanted) {
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  EXPECT_THROW(total_steps(of_epochs(1e6), loader_of(12, true), 0), Stopped);
}

TEST(TrainOptions, ALengthThatNoRunCanHaveIsRefused) {
  for (const double epochs : {1e300, 1e10, -1.0}) {
    const Recipe recipe = of_epochs(epochs);
    EXPECT_THAT([&] { recipe.train.validate(); },
                ThrowsMessage<ConfigError>(
                    HasSubstr("train.epochs must be between 0 and 1000000, found ")));
  }
  Recipe recipe;
  recipe.train.max_steps = std::numeric_limits<int64_t>::max();
  EXPECT_THAT([&] { recipe.train.validate(); },
              ThrowsMessage<ConfigError>(
                  HasSubstr("train.max_steps must be at most 1000000000, found 922337203685477")));
}

}  // namespace
}  // namespace qlora::recipes
