#include "recipes/plan/costly_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

namespace qlora::recipes {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A machine that suits its run.
MachineFacts good() { return {"bfloat16", {8e11, 2e11}, 1 << 20, 1 << 30, 2, 2, false}; }

TEST(CostlySettings, AGoodMachineHearsNothing) { EXPECT_THAT(costly_settings(good()), IsEmpty()); }

TEST(CostlySettings, SlowSixteenBitProductsAreNamedWithTheirRates) {
  MachineFacts facts = good();
  facts.rates.in_compute_dtype = 2e9;
  EXPECT_THAT(costly_settings(facts),
              ElementsAre(HasSubstr("bfloat16: products take 100 times as long")));
  facts.compute_dtype = "float32";
  facts.rates.in_float32 = 2e9;
  EXPECT_THAT(costly_settings(facts), IsEmpty());
}

// Of a machine whose samples are these, one after the other, and the last ever after.
class Samples {
 public:
  explicit Samples(std::vector<double> rates) : rates_(std::move(rates)) {}
  std::function<double()> next() {
    return [this] { return rates_[std::min(taken++, rates_.size() - 1)]; };
  }
  size_t taken = 0;

 private:
  const std::vector<double> rates_;
};

TEST(CostlySettings, SamplesThatABusyNeighbourSlowedGiveNoWarning) {
  MachineFacts facts = good();
  Samples sixteen_bit({2e9, 5e9, 3e9, 6e11}), float32({2e11, 1e11, 2e11, 2e10});
  facts.rates = best_rates(sixteen_bit.next(), float32.next());
  EXPECT_THAT(costly_settings(facts), IsEmpty());
  EXPECT_EQ(facts.rates.in_compute_dtype, 6e11);
  EXPECT_EQ(facts.rates.in_float32, 2e11);
  EXPECT_EQ(sixteen_bit.taken, 4u);
}

TEST(CostlySettings, AQuietMachineIsMeasuredOnceAndASlowOneUntilThatIsSure) {
  Samples fast({8e11}), slow({2e9, 1e9, 2.5e9}), float32({2e11});
  EXPECT_FALSE(best_rates(fast.next(), float32.next()).is_costly());
  EXPECT_EQ(fast.taken, 1u);
  MachineFacts facts = good();
  facts.rates = best_rates(slow.next(), float32.next());
  EXPECT_EQ(slow.taken, static_cast<size_t>(kMostSamples));
  EXPECT_THAT(costly_settings(facts),
              ElementsAre(HasSubstr("bfloat16: products take 80 times as long")));
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
  facts.rates.in_compute_dtype = 1;
  facts.threads = 100;
  EXPECT_THAT(costly_settings(facts), IsEmpty());
}

}  // namespace
}  // namespace qlora::recipes
