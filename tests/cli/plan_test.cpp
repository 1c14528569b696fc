#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

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

TEST(PlanCommand, RanksThatShareTheBaseHaveAPartEach) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.model.device_map = {{"", "ranks"}};
  write_recipe_file(dir, recipe);
  const auto purposes = [](const nlohmann::json& plan) {
    std::set<std::string> all;
    for (const auto& line : plan["memory"]) all.insert(line["purpose"].get<std::string>());
    return all;
  };
  const auto alone = purposes(planned(dir, {"--no-time"})),
             two = purposes(planned(dir, {"--no-time", "--ranks", "2"}));
  EXPECT_TRUE(alone.contains("base weights"));
  EXPECT_FALSE(alone.contains("this rank's part of the base"));
  EXPECT_FALSE(two.contains("base weights"));
  EXPECT_TRUE(two.contains("this rank's part of the base"));
}

TEST(PlanCommand, WhatRanksGatherIsSaidWithItsTime) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.model.device_map = {{"", "ranks"}};
  recipe.model.path = dir.write("deep/config.json", R"({
      "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
      "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
      "vocab_size": 258, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})");
  const std::string file = write_recipe_file(dir, recipe);
  EXPECT_FALSE(planned(dir, {"--no-time", "--ranks", "1"}).contains("ranks"));
  const auto assumed = planned(dir, {"--no-time", "--ranks", "2"})["ranks"]["gathers"];
  EXPECT_GT(assumed["bytes_a_step"].get<double>(), 0);
  EXPECT_EQ(assumed["rate_is_assumed"], true);
  const auto said =
      planned(dir, {"--no-time", "--ranks", "2", "--bandwidth", "1MB/s"})["ranks"]["gathers"];
  EXPECT_EQ(said["rate_is_assumed"], false);
  EXPECT_EQ(said["bytes_a_step"], assumed["bytes_a_step"]);
  EXPECT_DOUBLE_EQ(said["seconds_a_step"].get<double>(), said["bytes_a_step"].get<double>() / 1e6);
  EXPECT_THAT(run_qlora(dir, {"plan", file, "--no-time", "--ranks", "2"}).out,
              HasSubstr("gathering of the other ranks' parts of the base: "));
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

TEST(PlanCommand, RanksShareAStepAndItsSumsTakeTheirTime) {
  TempDir dir;
  write_recipe_file(dir, tiny_recipe(dir.path()));
  const auto alone = planned(dir, {"--no-time"});
  EXPECT_FALSE(alone.contains("ranks"));
  const auto plan = planned(dir, {"--ranks", "2", "--bandwidth", "1MB/s"});
  const auto& ranks = plan["ranks"];
  EXPECT_EQ(ranks["count"], 2);
  EXPECT_EQ(ranks["micro_batches_a_rank"], 1);
  EXPECT_EQ(ranks["peak_bytes_of_all"], 2 * plan["peak_bytes"].get<int64_t>());
  int64_t gradients = 0, buffers = 0, earlier = 0;
  for (const auto& line : plan["memory"]) {
    if (line["purpose"] == "adapters' gradients (float32)") gradients = line["bytes"];
    if (line["purpose"] == "buffers of the ranks' sums") buffers = line["bytes"];
    if (line["purpose"] == "gradients of earlier micro-batches") earlier = line["bytes"];
  }
  // Half of them to the other rank to be added, and half of the sums.
  EXPECT_EQ(ranks["bytes_sent_a_step"], gradients);
  EXPECT_EQ(buffers, 2 * gradients);
  EXPECT_EQ(earlier, 0);
  const double sum = static_cast<double>(gradients) / 1e6;
  EXPECT_DOUBLE_EQ(ranks["time"]["sum_seconds"].get<double>(), sum);
  const double step = plan["time"]["seconds_a_step"].get<double>() + sum;
  EXPECT_NEAR(ranks["time"]["seconds_a_step"].get<double>(), step, 1e-9);
  // A micro-batch of 128 tokens on each rank.
  EXPECT_NEAR(ranks["time"]["tokens_a_second"].get<double>(), 256 / step, 1e-6 * 256 / step);
  EXPECT_NEAR(
      plan["time"]["tokens_a_second"].get<double>() * plan["time"]["seconds_a_step"].get<double>(),
      128, 1e-3);
}

TEST(PlanCommand, WithoutABandwidthItSaysWhatIsNotCounted) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done = run_qlora(dir, {"plan", recipe, "--ranks", "2"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr("ranks: 2, each with 1 of 2 micro-batches a step"));
  EXPECT_THAT(done.out, HasSubstr("all of them on one machine: "));
  EXPECT_THAT(done.out, HasSubstr("without what their sums take"));
}

TEST(PlanCommand, RanksThatCannotShareAStepAreRefused) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done = run_qlora(dir, {"plan", recipe, "--ranks", "3", "--no-time"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, HasSubstr("train.gradient_accumulation_steps is 2 and there are 3 ranks"));
  const Finished rate = run_qlora(dir, {"plan", recipe, "--ranks", "2", "--bandwidth", "10GB"});
  EXPECT_EQ(rate.exit_code, 2);
  EXPECT_THAT(rate.err, HasSubstr("--bandwidth must be a rate"));
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

TEST(PlanCommand, FilesRowsAndTargetsAreToldTogetherAsByARun) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.train.push_back({dir / "absent.jsonl", "chat", {}});
  recipe.lora.targets = {"no_such_proj"};
  const std::string file = write_recipe_file(dir, recipe);
  const Finished done = run_qlora(dir, {"plan", file});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("lora.targets: 'no_such_proj'"),
                              HasSubstr("data.train[1]: " + dir / "absent.jsonl")));
  EXPECT_EQ(done.err, run_qlora(dir, {"train", file}).err);
}

TEST(PlanCommand, OfAConfigAloneNoTokenizerIsMissed) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.model.path = dir / "model/config.json";
  const std::string file = write_recipe_file(dir, recipe);
  EXPECT_EQ(run_qlora(dir, {"plan", file, "--no-time"}).exit_code, 0);
  const std::string absent = "data.train[0].path=" + dir / "absent.jsonl";
  EXPECT_EQ(run_qlora(dir, {"plan", file, "--no-time", "--set", absent}).exit_code, 0);
  const Finished wrong = run_qlora(dir, {"plan", file, "--set", "optim.lr=-1"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("optim.lr"), Not(HasSubstr("model.path")),
                               Not(HasSubstr("must have a member"))));
  const Finished run = run_qlora(dir, {"train", file});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, AllOf(HasSubstr("model.path: "), HasSubstr("config.json describes a model"),
                             Not(HasSubstr("must have a member"))));
  const Finished rows = run_qlora(dir, {"inspect", "data", file});
  EXPECT_EQ(rows.exit_code, 2);
  EXPECT_THAT(rows.err,
              HasSubstr("config.json describes a model, and holds neither its tokenizer"));
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
