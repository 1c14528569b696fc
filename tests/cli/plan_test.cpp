#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::HasSubstr;

nlohmann::json planned(const TempDir& dir, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"plan", dir / "recipe.yaml", "--json"});
  const Finished done = run_qlora(dir, arguments);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  return nlohmann::json::parse(done.out);
}

TEST(PlanCommand, MemoryByPurposeAndTimeAStep) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done = run_qlora(dir, {"plan", recipe});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  for (const char* part : {"base weights", "quantization scales", "optimizer state",
                           "activations kept", "run-time libraries", "memory: ", "tokens/s"})
    EXPECT_THAT(done.out, HasSubstr(part));
}

TEST(PlanCommand, JsonAddsUpToItsPeakAndItsStep) {
  TempDir dir;
  write_recipe_file(dir, tiny_recipe(dir.path()));
  const auto plan = planned(dir, {});
  int64_t always = 0;
  for (const auto& line : plan["memory"])
    if (line["phase"] == "always") always += line["bytes"].get<int64_t>();
  EXPECT_GT(plan["peak_bytes"].get<int64_t>(), always);
  double seconds = 0;
  for (const auto& stage : plan["time"]["stages"]) seconds += stage.get<double>();
  EXPECT_NEAR(plan["time"]["seconds_a_step"].get<double>(), seconds, 1e-9);
  // 128 tokens in each of two micro-batches.
  EXPECT_NEAR(plan["time"]["tokens_a_second"].get<double>(), 256 / seconds, 1e-6 * 256 / seconds);
}

TEST(PlanCommand, RowsThatTheCacheHasAreCounted) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.cache = "true";
  recipe.data.cache_dir = dir / "cache";
  write_recipe_file(dir, recipe);
  const auto before = planned(dir, {"--no-time"});
  EXPECT_FALSE(before.contains("rows"));
  const Finished made = run_qlora(dir, {"inspect", "data", dir / "recipe.yaml"});
  EXPECT_THAT(made.out, HasSubstr("data cache made: "));
  EXPECT_THAT(run_qlora(dir, {"inspect", "data", dir / "recipe.yaml"}).out,
              HasSubstr("data cache hit: "));
  const auto after = planned(dir, {"--no-time"});
  EXPECT_EQ(after["rows"]["examples"], 28);
  EXPECT_GT(after["rows"]["tokens"], 28);
}

TEST(PlanCommand, AGpuThatIsNotHereIsPlannedForWithoutATime) {
  TempDir dir;
  write_recipe_file(dir, tiny_recipe(dir.path()));
  const auto plan = planned(dir, {"--device", "cuda", "--no-time"});
  EXPECT_EQ(plan["device"], "cuda");
  EXPECT_TRUE(plan["time"].is_null());
}

TEST(PlanCommand, FitNamesTheKeysToSet) {
  TempDir dir;
  write_recipe_file(dir, tiny_recipe(dir.path()));
  const auto plan = planned(dir, {"--no-time", "--fit", "8GB"});
  EXPECT_EQ(plan["fit"]["fits"], true);
  EXPECT_EQ(plan["fit"]["keys"]["train.micro_batch_size"], "2");
  EXPECT_EQ(plan["fit"]["keys"]["train.gradient_accumulation_steps"], "1");
  EXPECT_EQ(plan["fit"]["keys"]["train.gradient_checkpointing"], "false");
}

TEST(PlanCommand, WhereNothingFitsItSaysByHowMuch) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done = run_qlora(dir, {"plan", recipe, "--no-time", "--fit", "10MB"});
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(done.out, HasSubstr("memory: "));
  EXPECT_THAT(done.err, HasSubstr("nothing fits into 10 MB"));
  const Finished json = run_qlora(dir, {"plan", recipe, "--no-time", "--json", "--fit", "10MB"});
  EXPECT_EQ(json.exit_code, 2) << json.err;
  EXPECT_EQ(nlohmann::json::parse(json.out)["fit"]["fits"], false);
}

TEST(PlanCommand, WrongInputIsToldInOneSentence) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished size = run_qlora(dir, {"plan", recipe, "--fit", "much"});
  EXPECT_EQ(size.exit_code, 2);
  EXPECT_THAT(size.err, HasSubstr("--fit must be auto or a size"));
  const Finished model = run_qlora(dir, {"plan", recipe, "--set", "model.path=/nowhere"});
  EXPECT_EQ(model.exit_code, 2);
  EXPECT_THAT(model.err, HasSubstr("/nowhere does not exist"));
}

TEST(PlanCommand, ARunPrintsWhatWasPredictedAndMeasured) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done = run_qlora(dir, {"train", recipe});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, HasSubstr(" MB predicted, "));
}

}  // namespace
}  // namespace qlora::test
