#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "quant/tensor_file.h"
#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::HasSubstr;
using testing::Not;

// The last loss that the run logged on the rows it had set aside is that of its adapter on them.
TEST(EvaluateCommand, TakesTheRowsThatTheRunSetAside) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.eval.clear();
  recipe.data.eval_fraction = 0.3;
  recipe.train.eval_every = 3;
  const std::string file = write_recipe_file(dir, recipe);
  ASSERT_EQ(run_qlora(dir, {"train", file}).exit_code, 0);
  double logged = 0;
  std::istringstream lines(read_file(dir / "run/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto metrics = nlohmann::json::parse(line);
    if (metrics.contains("eval_loss") && metrics["step"] == recipe.train.max_steps)
      logged = metrics["eval_loss"].get<double>();
  }
  ASSERT_GT(logged, 0);

  const Finished done =
      run_qlora(dir, {"evaluate", dir / "run", "--json", "--exact-match", "--max-new-tokens", "2"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const auto result = nlohmann::json::parse(done.out)[0];
  EXPECT_NEAR(result["loss"].get<double>(), logged, 1e-6 * logged);
  EXPECT_EQ(result["rows"].size(), 7U);  // 0.3 of 23
  ASSERT_EQ(result["answers"].size(), 7U);
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(result["answers"][i]["row"], result["rows"][i]["row"]);
}

// Twelve and four tokens, with the end of text.
TEST(EvaluateCommand, RowsThatAreDroppedOrCutAreToldOf) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  const std::string rows = dir.write("rows.jsonl",
                                     "{\"prompt\": \"abcde\", \"completion\": \"fghijk\"}\n"
                                     "{\"prompt\": \"a\", \"completion\": \"bc\"}\n");
  const auto told = [&](const std::string& sequence_length, const std::string& policy) {
    const Finished done =
        run_qlora(dir, {"evaluate", "--model", dir / "model", "--data", rows, "--format",
                        "completion", "--json", "--set", "data.sequence_length=" + sequence_length,
                        "--set", "data.on_overlength=" + policy});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    return done.err;
  };
  EXPECT_THAT(told("8", "drop"),
              HasSubstr("rows.jsonl (completion): 2 rows, 1 examples, 1 dropped as too long"));
  EXPECT_THAT(told("8", "truncate_left"), HasSubstr("2 rows, 2 examples, 1 truncated"));
  EXPECT_THAT(told("100", "drop"), Not(HasSubstr("rows.jsonl (completion)")));
}

// Nothing is measured there, and a loss of 0 would be that of a perfect model.
TEST(EvaluateCommand, RowsOfWhichNothingIsLeftOrSupervisedAreRefused) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  const std::string good = dir.write("good.jsonl", R"({"input_ids": [5, 6, 7]})");
  const std::string rows =
      dir.write("rows.jsonl", R"({"input_ids": [5, 6, 7], "labels": [-100, -100, -100]})");
  const auto refused = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = {"evaluate", "--model",  dir / "model",  "--data",
                                    rows,       "--format", "pretokenized", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    const Finished done = run_qlora(dir, all);
    EXPECT_EQ(done.exit_code, 2) << done.err;
    EXPECT_EQ(done.out, "");
    return done.err;
  };
  EXPECT_THAT(refused({}), HasSubstr("rows.jsonl: no example is left to evaluate on: none of the "
                                     "tokens of its rows is supervised"));
  EXPECT_THAT(refused({"--data", good}), HasSubstr("is supervised")) << "one of two files";
  EXPECT_THAT(refused({"--set", "data.sequence_length=2", "--set", "data.on_overlength=drop"}),
              HasSubstr("no example is left to evaluate on (1 rows; 1 too long"));
}

double loss_of(const TempDir& dir, const std::vector<std::string>& arguments) {
  std::vector<std::string> all = {"evaluate", "--data", dir / "eval.jsonl",
                                  "--format", "chat",   "--json"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const Finished done = run_qlora(dir, all);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  return done.exit_code == 0 ? nlohmann::json::parse(done.out)[0]["loss"].get<double>() : -1;
}

TEST(EvaluateCommand, ComparesWithTheOriginalOfABaseThatTheInitialisationChanged) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  for (const char* init : {"default", "loftq"}) {
    recipe.lora.init = init;
    recipe.output.dir = dir / init;
    ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  }
  const double original = loss_of(dir, {dir / "default", "--compare-base"});
  EXPECT_EQ(loss_of(dir, {dir / "loftq", "--compare-base"}), original);
  EXPECT_NE(loss_of(dir, {"--model", dir / "loftq/base"}), original);
}

TEST(EvaluateCommand, OfAChangedBaseAloneNothingIsComparedWith) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.lora.init = "loftq";
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  const std::vector<std::string> by_hand = {
      "evaluate",       "--data",    dir / "eval.jsonl",  "--model",
      dir / "run/base", "--adapter", dir / "run/adapter", "--compare-base"};
  const Finished refused = run_qlora(dir, by_hand);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, ::testing::HasSubstr("--compare-base"));
  EXPECT_THAT(refused.err, ::testing::HasSubstr("the run's directory"));
  std::filesystem::rename(dir / "model", dir / "moved");
  const Finished gone = run_qlora(dir, {"evaluate", dir / "run", "--compare-base"});
  EXPECT_EQ(gone.exit_code, 2);
  EXPECT_THAT(gone.err, ::testing::HasSubstr("--compare-base"));
}

// As a training leaves it that has diverged: each value is a number, what comes of them is none.
TEST(EvaluateCommand, ALossThatIsNoNumberIsAnErrorAndSoIsAnExport) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 1;
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  const std::string weights = dir / "run/adapter/adapter_model.safetensors";
  quant::NamedTensors tensors = quant::read_tensors(weights);
  for (auto& [name, tensor] : tensors) tensor.fill_(3e38);
  quant::write_tensors(weights, tensors, {{"format", "pt"}});
  const Finished evaluated =
      run_qlora(dir, {"evaluate", dir / "run", "--data", dir / "eval.jsonl"});
  EXPECT_EQ(evaluated.exit_code, 3) << evaluated.err;
  EXPECT_THAT(evaluated.err, HasSubstr("a training that diverged"));
  EXPECT_EQ(evaluated.out, "");
  for (const char* format : {"merged", "adapter"}) {
    const Finished exported =
        run_qlora(dir, {"export", dir / "run", "--format", format, "--output", dir / "out"});
    EXPECT_EQ(exported.exit_code, 3) << exported.err;
    EXPECT_THAT(exported.err, HasSubstr("a training that diverged"));
    EXPECT_FALSE(std::filesystem::exists(dir / "out"));
  }
}

TEST(EvaluateCommand, OfPairsItSaysWhichAnswersAreLikelier) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  const std::string rows =
      dir.write("pairs.jsonl",
                "{\"prompt\": \"a\", \"chosen\": \"bc\", \"rejected\": \"d\"}\n"
                "{\"prompt\": \"a\", \"chosen\": \"d\", \"rejected\": \"bc\"}\n");
  const Finished done = run_qlora(dir, {"evaluate", "--model", dir / "model", "--data", rows,
                                        "--format", "preference", "--json"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const auto result = nlohmann::json::parse(done.out)[0];
  EXPECT_EQ(result["pairs"], 2);
  EXPECT_EQ(result["chosen_likelier"], 1);  // the two rows are each other's reverse
  ASSERT_EQ(result["rows"].size(), 4U);
  EXPECT_EQ(result["supervised_tokens"], 5);  // bc, d and an end of text each
  const double nll =
      result["rows"][0]["nll"].get<double>() + result["rows"][2]["nll"].get<double>();
  EXPECT_NEAR(result["loss"].get<double>(), nll / 5, 1e-6);
}

// The second row is longer than the model's 20 positions, and so is its prompt.
TEST(EvaluateCommand, ExactMatchAsksTheRowsThatTheLossIsOfAndSaysOfWhichFile) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  auto config = nlohmann::json::parse(read_file(dir / "model/config.json"));
  config["max_position_embeddings"] = 20;
  dir.write("model/config.json", config.dump());
  std::string text;
  for (const auto& [prompt, completion] :
       {std::pair{std::string("abc"), "d"}, {std::string(30, 'x'), "y"}, {"ab", "c\nd"}})
    text += nlohmann::json({{"prompt", prompt}, {"completion", completion}}).dump() + "\n";
  const std::string first = dir.write("first.jsonl", text),
                    second = dir.write("second.jsonl", text);
  const auto evaluated = [&](const std::string& policy, const std::vector<std::string>& more) {
    std::vector<std::string> all = {"evaluate",
                                    "--model",
                                    dir / "model",
                                    "--data",
                                    first,
                                    "--format",
                                    "completion",
                                    "--exact-match",
                                    "--max-new-tokens",
                                    "2",
                                    "--show",
                                    "9",
                                    "--set",
                                    "data.on_overlength=" + policy};
    all.insert(all.end(), more.begin(), more.end());
    return run_qlora(dir, all);
  };
  const Finished done = evaluated("drop", {"--data", second, "--json"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const auto result = nlohmann::json::parse(done.out)[0];
  EXPECT_EQ(result["datasets"], nlohmann::json({first, second}));
  ASSERT_EQ(result["answers"].size(), 4U);
  for (size_t i = 0; i < 4; ++i)
    for (const char* key : {"row", "dataset"})
      EXPECT_EQ(result["answers"][i][key], result["rows"][i][key]) << key;
  EXPECT_EQ(result["answers"][2]["dataset"], 1);

  const Finished printed = evaluated("drop", {"--data", second});
  EXPECT_THAT(printed.out, testing::AllOf(HasSubstr("row 2 of " + first + "\n"),
                                          HasSubstr("row 0 of " + second + "\n"),
                                          HasSubstr("expected   c d\n")));
  const Finished of_one = evaluated("drop", {});
  EXPECT_THAT(of_one.out, testing::AllOf(HasSubstr("row 0\n"), HasSubstr("of 2 rows")));

  const Finished refused = evaluated("truncate_left", {});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err,
              testing::AllOf(HasSubstr("first.jsonl:2: --exact-match: the prompt has 30 tokens"),
                             HasSubstr("--set data.sequence_length=20 --set "
                                       "data.on_overlength=drop leaves such rows out")));
  EXPECT_EQ(refused.out, "");
}

}  // namespace
}  // namespace qlora::test
