#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>

#include "base/cgroup.h"
#include "recipes/plan/plan.h"
#include "recipes/run/ranks.h"
#include "tests/support/ranks.h"

namespace qlora::recipes {
namespace {

void bind_to_first_core() {
  cpu_set_t allowed, first;
  CPU_ZERO(&allowed);
  CPU_ZERO(&first);
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  int core = 0;
  while (!CPU_ISSET(core, &allowed)) ++core;
  CPU_SET(core, &first);
  ASSERT_EQ(sched_setaffinity(0, sizeof(first), &first), 0);
}

TEST(RankCores, RanksOfAMachineShareItsCoresUnlessOneIsBoundToItsOwn) {
  const auto codes = test::run_ranks(2, [](distributed::Group& group) {
    EXPECT_EQ(cores_of_rank(group), std::max(usable_cores() / 2, 1));
    if (!group.leads()) bind_to_first_core();
    EXPECT_EQ(cores_of_rank(group), usable_cores());
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

TEST(RankCores, OneRankHasThemAll) {
  distributed::Group group;
  EXPECT_EQ(cores_of_rank(group), usable_cores());
}

TEST(RankCores, RanksHaveEqualPartsOfAStepOrNone) {
  Recipe recipe;
  recipe.train.gradient_accumulation_steps = 12;
  EXPECT_EQ(micro_batches_a_rank(recipe, 1), 12);
  EXPECT_EQ(micro_batches_a_rank(recipe, 4), 3);
  try {
    micro_batches_a_rank(recipe, 5);
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("set it to a multiple of 5"), std::string::npos);
  }
}

}  // namespace
}  // namespace qlora::recipes
