#include "recipes/plan/costly_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora::recipes {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A machine that suits its run.
MachineFacts good() { return {"bfloat16", 8e11, 2e11, 1 << 20, 1 << 30, 2, 2, false}; }

TEST(CostlySettings, AGoodMachineHearsNothing) { EXPECT_THAT(costly_settings(good()), IsEmpty()); }

TEST(CostlySettings, SlowSixteenBitProductsAreNamedWithTheirRates) {
  MachineFacts facts = good();
  facts.operations_a_second = 2e9;
  EXPECT_THAT(costly_settings(facts),
              ElementsAre(HasSubstr("bfloat16: products take 100 times as long")));
  facts.compute_dtype = "float32";
  facts.float32_operations_a_second = 2e9;
  EXPECT_THAT(costly_settings(facts), IsEmpty());
}

TEST(CostlySettings, MemoryThatIsNotThereAndThreadsWithoutCoresAreNamed) {
  MachineFacts facts = good();
  facts.planned_bytes = facts.free_bytes + 1;
  facts.threads = 3;
  EXPECT_THAT(costly_settings(facts),
              ElementsAre(HasSubstr("swaps"), HasSubstr("train.threads is 3")));
}

TEST(CostlySettings, ThreadsOfSeveralRanksAndOfARunThatGoesOnAreToldWhatHelpsThem) {
  MachineFacts facts = good();
  facts.threads = 2;
  facts.cores = 1;
  facts.ranks = 2;
  EXPECT_THAT(
      costly_settings(facts),
      ElementsAre(HasSubstr("train.threads is 2 and each of the 2 ranks on this machine has "
                            "1 cores")));
  facts.goes_on = true;
  EXPECT_THAT(costly_settings(facts),
              ElementsAre(AllOf(HasSubstr("began with 2 threads a rank"),
                                HasSubstr("go on with fewer ranks on this machine"))));
  facts.ranks = 1;
  EXPECT_THAT(costly_settings(facts),
              ElementsAre(AllOf(HasSubstr("began with 2 threads, which it keeps"),
                                Not(HasSubstr("ranks")))));
  facts.cores = 2;
  EXPECT_THAT(costly_settings(facts), IsEmpty());
}

TEST(CostlySettings, OfAGpuNothingIsSaid) {
  MachineFacts facts = good();
  facts.on_gpu = true;
  facts.operations_a_second = 1;
  facts.threads = 100;
  EXPECT_THAT(costly_settings(facts), IsEmpty());
}

}  // namespace
}  // namespace qlora::recipes
