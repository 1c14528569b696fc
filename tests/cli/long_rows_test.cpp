#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(LongRows, TheFirstBeyondTheModelsPositionsIsNamedWithItsLength) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 1;
  const std::string path = write_recipe_file(dir, recipe);
  EXPECT_THAT(run_qlora(dir, {"train", path}).err, Not(HasSubstr("max_position_embeddings")));
  json config = json::parse(read_file(dir / "model/config.json"));
  config["max_position_embeddings"] = 20;
  dir.write("model/config.json", config.dump());
  const Finished again = run_qlora(dir, {"train", path, "--overwrite"});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.err, AllOf(HasSubstr("rows.jsonl:1: the row has"),
                               HasSubstr("max_position_embeddings of the model is 20")));
  const Finished evaluated =
      run_qlora(dir, {"evaluate", "--model", dir / "model", "--data", dir / "eval.jsonl",
                      "--format", "chat", "--set", "data.sequence_length=128"});
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.err;
  EXPECT_THAT(evaluated.err, AllOf(HasSubstr("eval.jsonl:1: the row has"),
                                   HasSubstr("max_position_embeddings of the model is 20")));
  const std::string text = R"({"text": "a"})",
                    long_text = json({{"text", std::string(50, 'x')}}).dump();
  dir.write("array.json", "[" + text + ", " + long_text + "]");
  const Finished of_array =
      run_qlora(dir, {"evaluate", "--model", dir / "model", "--data", dir / "array.json",
                      "--format", "text", "--set", "data.sequence_length=128"});
  EXPECT_EQ(of_array.exit_code, 0) << of_array.err;
  EXPECT_THAT(of_array.err, HasSubstr("array.json, row 1: the row has"));
}

// By yarn four times as many positions as the file says, of which no key is said to be too small.
TEST(LongRows, AModelWhoseContextIsScaledReachesAsFarAsTheScaling) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  json config = json::parse(read_file(dir / "model/config.json"));
  config["max_position_embeddings"] = 10;
  config["rope_parameters"] = {{"rope_type", "yarn"},
                               {"rope_theta", 10000.0},
                               {"factor", 4.0},
                               {"original_max_position_embeddings", 10}};
  dir.write("model/config.json", config.dump());
  const Finished cut = run_qlora(
      dir, {"generate", "--model", dir / "model", "--raw", "--prompt", "abcdefghijklmnopqrst"});
  EXPECT_EQ(cut.exit_code, 0) << cut.err;
  EXPECT_THAT(cut.err, HasSubstr("it fills the 40 positions that the model has learnt (RoPE "
                                 "scaling yarn: 4 times 10)"));
  const auto evaluated = [&](const std::string& text, const std::vector<std::string>& more = {}) {
    const std::string rows = dir.write("rows.jsonl", json({{"text", text}}).dump());
    std::vector<std::string> all = {"evaluate", "--model",  dir / "model", "--data",
                                    rows,       "--format", "text"};
    all.insert(all.end(), more.begin(), more.end());
    return run_qlora(dir, all);
  };
  const Finished fits = evaluated(std::string(30, 'x'));
  EXPECT_EQ(fits.exit_code, 0) << fits.err;
  EXPECT_THAT(fits.err, Not(HasSubstr("the row has")));
  const Finished beyond = evaluated(std::string(50, 'x'));
  EXPECT_EQ(beyond.exit_code, 2);
  EXPECT_THAT(beyond.err, AllOf(HasSubstr("rows.jsonl:1: the row has"),
                                HasSubstr("more than the 40 positions of the model; choose with "
                                          "data.on_overlength"),
                                Not(HasSubstr("data.sequence_length"))));
  const Finished wanted = evaluated(std::string(50, 'x'), {"--set", "data.sequence_length=100"});
  EXPECT_EQ(wanted.exit_code, 0) << wanted.err;
  EXPECT_THAT(wanted.err, HasSubstr("the model reaches 40 tokens (RoPE scaling yarn: 4 times 10)"));
}

TEST(LongRows, AnAnswerThatThePositionsCutOffIsToldOf) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  const std::vector<std::string> command = {"generate", "--model",  dir / "model",
                                            "--raw",    "--prompt", "abcdefgh"};
  std::vector<std::string> short_answer = command;
  short_answer.insert(short_answer.end(), {"--max-new-tokens", "1"});
  json config = json::parse(read_file(dir / "model/config.json"));
  config["max_position_embeddings"] = 10;
  dir.write("model/config.json", config.dump());
  const Finished cut = run_qlora(dir, command);
  EXPECT_EQ(cut.exit_code, 0) << cut.err;
  EXPECT_THAT(cut.err, HasSubstr("with the prompt it fills the 10 positions"));
  EXPECT_THAT(run_qlora(dir, short_answer).err, Not(HasSubstr("it fills the")));
}

}  // namespace
}  // namespace qlora::test
