// What of a machine's memory a rank takes for itself.
#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "model/model_header.h"
#include "recipes/plan/free_memory.h"
#include "recipes/plan/plan.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
using quant::Home;
using ::testing::HasSubstr;

TEST(RankMemory, IsAnEqualPartOfWhatIsFree) {
  const auto all = static_cast<double>(free_memory_bytes(at::kCPU));
  // Other programs take and give back some in between.
  EXPECT_NEAR(static_cast<double>(free_memory_of_rank(at::kCPU, 1)) / all, 1, 0.1);
  EXPECT_NEAR(static_cast<double>(free_memory_of_rank(at::kCPU, 4)) / all, 0.25, 0.03);
}

TEST(RankMemory, OfADeviceMapThatIsAutomaticIsTheRanksPart) {
  constexpr int kMany = 1 << 20;  // of each some kilobytes, on any machine
  const test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.model.device_map = {{"", "auto"}};
  recipe.train.gradient_accumulation_steps = kMany;
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  const auto placement = [&](int ranks_here) {
    return planned_run(recipe, header, /*on_gpu=*/false, kMany, ranks_here).placement;
  };
  EXPECT_FALSE(placement(1).elsewhere());
  const model::Placement on_one_machine = placement(0);
  EXPECT_EQ(on_one_machine.layers, placement(kMany).layers);
  EXPECT_EQ(on_one_machine.count(Home::kDevice), 0);
  EXPECT_THAT(on_one_machine.to_text(), HasSubstr("what is free on cpu for each rank"));
}

}  // namespace
}  // namespace qlora::recipes
