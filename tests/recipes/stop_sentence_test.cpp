#include "recipes/run/stop_sentence.h"

#include <gtest/gtest.h>

namespace qlora::recipes {
namespace {

trainer::TrainState after_step(int64_t step) {
  trainer::TrainState state;
  state.step = step;
  return state;
}

TEST(StopSentence, NamesTheStepThatIsAbandonedAndTheOneThatIsSaved) {
  EXPECT_EQ(stop_sentence({"step 12 of 30", 3, 16, "micro-batches"}, after_step(11), "runs/mine"),
            "stopped in step 12 after micro-batch 3 of 16; the step is abandoned, the run is saved "
            "after step 11; go on with: qlora resume runs/mine");
}

TEST(StopSentence, SaysThatAnEvaluationWillBeDoneAgain) {
  trainer::TrainState state = after_step(12);
  state.evaluation_due = true;
  EXPECT_EQ(stop_sentence({"evaluation", 40, 200, "rows"}, state, "runs/mine"),
            "stopped in the evaluation after step 12 at row 40 of 200; it will be done again, the "
            "run is saved after step 12; go on with: qlora resume runs/mine");
}

TEST(StopSentence, BetweenStepsNothingIsAbandoned) {
  EXPECT_EQ(stop_sentence({}, after_step(12), "runs/mine"),
            "stopped after step 12 and saved; go on with: qlora resume runs/mine");
}

}  // namespace
}  // namespace qlora::recipes
