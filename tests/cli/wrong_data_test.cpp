// What a run says to wrong rows, files and targets: before its weights are read, and all at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

void append_line(const std::string& path, const std::string& line) {
  std::ofstream(path, std::ios::app) << line << '\n';
}

std::string chat_row(const std::string& question, const std::string& answer) {
  return nlohmann::json{
      {"messages",
       {{{"role", "user"}, {"content", question}}, {{"role", "assistant"}, {"content", answer}}}}}
      .dump();
}

// bf16 NaN (0x7fc0) into the last weight of the file, which only reading the weights finds.
void spoil_weights(const std::string& model) {
  std::fstream file(model + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-2, std::ios::end);
  file.write("\xc0\x7f", 2);
}

// The tokenizer of the tiny model knows one token more than its embedding has rows (258).
void add_token_without_embedding(const std::string& model) {
  const std::string path = model + "/tokenizer_config.json";
  nlohmann::json config = nlohmann::json::parse(read_file(path));
  config["added_tokens_decoder"] = {{"258",
                                     {{"content", "<|note|>"},
                                      {"special", true},
                                      {"normalized", false},
                                      {"lstrip", false},
                                      {"rstrip", false},
                                      {"single_word", false}}}};
  std::ofstream(path) << config.dump();
}

TEST(WrongData, AFormatThatIsNoneIsToldWithItsKey) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.eval[0].format = "messages";
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(done.err, HasSubstr("data.eval[0].format must be one of alpaca, chat"));
}

TEST(WrongData, FilesRowsAndTargetsAreToldTogetherBeforeAWeightIsRead) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.train.push_back({dir / "absent.jsonl", "chat", {}});
  recipe.data.eval[0].path = dir / "gone.jsonl";
  recipe.lora.targets = {"no_such_proj"};
  append_line(dir / "rows.jsonl", chat_row("q", std::string(200, 'x')));  // 128 tokens fit
  spoil_weights(dir / "model");
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(
      done.err,
      AllOf(HasSubstr("data.train[1]: " + dir / "absent.jsonl"), HasSubstr("gone.jsonl"),
            HasSubstr("lora.targets: 'no_such_proj' matches no module"),
            HasSubstr("rows.jsonl:24: "), Not(HasSubstr("NaN")), Not(HasSubstr("base model"))));
  EXPECT_THAT(done.err, testing::ContainsRegex("recipe.yaml:[0-9]+:[0-9]+: lora.targets"));
  EXPECT_FALSE(fs::exists(dir / "run/recipe.resolved.yaml"));
}

TEST(WrongData, ProblemsOfTheRecipeAndOfItsFilesAreToldTogether) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  fs::remove(dir / "rows.jsonl");
  const Finished done = run_qlora(dir, {"train", recipe, "--set", "optim.learning_rate=1", "--set",
                                        "lora.targets=[no_such_proj]"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("optim.lr"), HasSubstr("rows.jsonl: the dataset cannot"),
                              HasSubstr("'no_such_proj' matches no module")));
}

// Rows are not read by a length that no row can have, also where the section has another fault.
TEST(WrongData, ASequenceLengthThatNoRowCanHaveIsTold) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const auto refused = [&](std::vector<std::string> arguments, const std::string& length,
                           const std::string& policy, const std::string& told) {
    arguments.insert(arguments.end(), {"--set", "data.sequence_length=" + length, "--set",
                                       "data.on_overlength=" + policy});
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2) << length << " " << policy << ": " << done.err;
    EXPECT_THAT(done.err, HasSubstr(told));
  };
  for (const std::string length : {"-5", "0", "1"})
    for (const std::string policy : {"error", "drop", "truncate_left", "truncate_right", "split"})
      refused({"train", recipe}, length, policy,
              "data.sequence_length must be at least 2, got " + length);
  refused({"inspect", "data", recipe}, "0", "truncate_right", "data.sequence_length must be");
  refused({"plan", recipe}, "1", "split", "data.sequence_length must be");
  refused({"train", recipe, "--set", "data.mix_by=lines"}, "1", "split",
          "data.mix_by must be rows or tokens");
}

TEST(WrongData, AFaultOfAKeyDoesNotHideThoseOfOthersInItsSection) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done = run_qlora(
      dir, {"train", recipe, "--set", "lora.rank=0", "--set", "lora.targets=[no_such_proj]"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("lora.rank must be between 1 and"),
                              HasSubstr("'no_such_proj' matches no module")));
}

TEST(WrongData, PatternsThatMeanNoModuleAreToldTogether) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done =
      run_qlora(dir, {"train", recipe, "--set", "lora.targets=[q_prj, v_prj]", "--set",
                      "lora.exclude_modules=[nope]", "--set", "lora.rank_pattern={zzz: 4}", "--set",
                      "lora.alpha_pattern={up_prj: 4}", "--set", "lora.layers_to_transform=[99]"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err,
              AllOf(HasSubstr("lora.targets: 'q_prj' (did you mean 'q_proj'?), 'v_prj' "
                              "(did you mean 'v_proj'?) match no module"),
                    HasSubstr("lora.exclude_modules: 'nope' matches no module"),
                    HasSubstr("lora.rank_pattern: 'zzz' matches no module"),
                    HasSubstr("lora.alpha_pattern: 'up_prj' matches no module; did you "
                              "mean 'up_proj'?"),
                    HasSubstr("lora.layers_to_transform: the model has the layers 0 to")));
  for (const std::string layer : {"99", "-1"}) {
    const Finished layers =
        run_qlora(dir, {"train", recipe, "--set", "lora.layers_to_transform=[" + layer + "]"});
    EXPECT_EQ(layers.exit_code, 2);
    EXPECT_THAT(layers.err, AllOf(HasSubstr("lora.layers_to_transform: "),
                                  HasSubstr("got " + layer), Not(HasSubstr("lora.targets"))));
  }
}

TEST(WrongData, WhatTheModelsSizesForbidIsToldBeforeRowsAreRead) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const Finished done = run_qlora(dir, {"train", recipe, "--set", "train.gradient_checkpointing=99",
                                        "--set", "lora.rank=4096", "--set", "lora.init=pissa"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(
      done.err,
      AllOf(HasSubstr("--set train.gradient_checkpointing=99: "
                      "train.gradient_checkpointing must be auto, true, false or how many"),
            HasSubstr("--set lora.rank=4096: lora.rank: init pissa needs a rank of at most"),
            Not(HasSubstr("examples"))));
}

// Beside a weight that stays as it is LoftQ's adapter starts as any other.
TEST(WrongData, ARankThatLoftqCannotHaveIsOneOfAQuantizedWeight) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  std::vector<std::string> arguments = {"train", recipe,
                                        "--set", "train.max_steps=1",
                                        "--set", "lora.init=loftq",
                                        "--set", "lora.targets=[q_proj, down_proj]",
                                        "--set", "lora.rank_pattern={q_proj: 40}"};
  const Finished refused = run_qlora(dir, arguments);
  EXPECT_EQ(refused.exit_code, 2) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("init loftq needs a rank of at most 32 for "
                                     "model.layers.0.self_attn.q_proj, got 40"));
  arguments.insert(arguments.end(), {"--set", "quantization.skip_modules=[q_proj]"});
  const Finished done = run_qlora(dir, arguments);
  EXPECT_EQ(done.exit_code, 0) << done.err;
}

TEST(WrongData, AModelThatIsMissingIsToldWithTheRest) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.model.path = dir / "no-model";
  recipe.model.dtype = "auto";
  recipe.data.train[0].path = dir / "absent.jsonl";
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("no-model"), HasSubstr("absent.jsonl")));
}

TEST(WrongData, AnAdapterThatIsMissingIsToldWithTheRest) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.lora.from_adapter = dir / "no_adapter";
  fs::remove(dir / "rows.jsonl");
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("no_adapter"), HasSubstr("rows.jsonl: the dataset")));
}

TEST(WrongData, ALaterRowIsToldBeforeAWeightIsReadToo) {
  TempDir dir;
  const recipes::Recipe recipe = tiny_recipe(dir.path());
  for (int i = 0; i < 200; ++i) append_line(dir / "rows.jsonl", chat_row("q", "a"));
  append_line(dir / "rows.jsonl", R"({"question": "q"})");
  spoil_weights(dir / "model");
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("rows.jsonl:224: "), Not(HasSubstr("base model"))));
}

// 16 empty answers are not 16 runs of the program.
TEST(WrongData, AllBadRowsOfAFileAreToldTogether) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  std::string rows = "[" + chat_row("q", "a");
  for (int i = 1; i < 200; ++i) rows += "," + chat_row("q", i % 12 == 0 ? "" : "a");
  const std::string file = dir.write("array.json", rows + "]");
  spoil_weights(dir / "model");
  const std::string train = "data.train=[{path: " + file + "}]";
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"train", recipe, "--set", train},
        {"inspect", "data", recipe, "--set", train},
        {"evaluate", "--model", dir / "model", "--data", file},
        {"evaluate", "--model", dir / "model", "--exact-match", "--data", file}}) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2) << done.err;
    EXPECT_THAT(done.err,
                AllOf(HasSubstr("array.json, row 12: message 1 is an assistant turn without text"),
                      HasSubstr("array.json, row 120: message 1"),
                      HasSubstr("\n6 further rows: 6 like " + file + ", row 12 (message 1"),
                      HasSubstr("\n16 of the 200 rows of " + file + " are refused: mend them")))
        << arguments[0];
  }
}

TEST(WrongData, ATokenBeyondTheEmbeddingIsRefusedWhereverItComesFrom) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  add_token_without_embedding(dir / "model");
  const std::string file = write_recipe_file(dir, recipe);
  const std::string model = dir / "model";
  const std::string row = dir.write("note.jsonl", chat_row("q", "see <|note|>") + "\n");
  const std::string train = "data.train=[{path: " + row + "}]";
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& place) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2) << done.err;
    EXPECT_THAT(done.err,
                AllOf(HasSubstr(place), HasSubstr("'<|note|>' (id 258)"), HasSubstr("258 rows")));
  };
  refused({"train", file, "--set", train}, "note.jsonl:1: ");
  refused({"inspect", "data", file, "--set", train}, "note.jsonl:1: ");
  refused({"evaluate", "--model", model, "--data", row}, "note.jsonl:1: ");
  refused({"evaluate", "--model", model, "--exact-match", "--data", row}, "note.jsonl:1: ");
  refused({"generate", "--model", model, "--raw", "--prompt", "hi <|note|>"}, "token 3");
  refused({"generate", "--model", model, "--prompt", "hi <|note|>"}, "token ");
}

// The weights are spoilt: whoever reads them says so.
TEST(WrongData, WhatACommandCannotDoIsToldBeforeAWeightIsRead) {
  TempDir dir;
  tiny_recipe(dir.path());
  const std::string model = dir / "model", plain = dir / "plain", rows = dir / "rows.jsonl";
  spoil_weights(model);
  fs::copy(model, plain);
  nlohmann::json config = nlohmann::json::parse(read_file(plain + "/tokenizer_config.json"));
  config.erase("chat_template");
  std::ofstream(plain + "/tokenizer_config.json") << config.dump();
  dir.write("there/file", "x");
  dir.write("messages.json", R"([{"role": "user", "content": "hi"}])");
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& told) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2) << done.err;
    EXPECT_THAT(done.err,
                AllOf(HasSubstr(told), Not(HasSubstr("NaN")), Not(HasSubstr("model.safetensors"))));
  };
  refused({"export", "--model", model, "--format", "merged", "--output", dir / "there"},
          "there must not exist or be an empty directory");
  refused({"generate", "--model", plain, "--prompt", "hi"},
          "the model has no chat template; give the text as --prompt TEXT --raw");
  refused({"generate", "--model", plain, "--messages", dir / "messages.json"},
          "the model has no chat template");
  refused({"generate", "--model", model, "--messages", dir / "messages.json", "--raw"},
          "--raw goes with --prompt");
  refused({"chat", "--model", plain}, "the model has no chat template; use qlora generate");
  refused({"evaluate", "--model", plain, "--data", rows}, "no chat template");
  refused({"evaluate", "--model", model, "--data", rows, "--format", "alpaca"}, "rows.jsonl:1: ");
  refused({"evaluate", "--model", model, "--data", rows, "--format", "llama3"}, "--format llama3");
  refused({"evaluate", "--model", model, "--data", rows, "--set", "data.sequence_length=0"},
          "data.sequence_length must be at least 2, got 0");
  refused({"evaluate", "--model", model, "--data", rows, "--set",
           "data.chat_template=" + dir / "absent.jinja"},
          "absent.jinja");
  refused({"evaluate", "--model", model, "--data", rows, "--separator", "x"}, "separator");
}

class AtHome : public testing::Test {
 protected:
  AtHome() { setenv("HOME", dir.path().c_str(), 1); }
  ~AtHome() override { setenv("HOME", kept_.c_str(), 1); }
  TempDir dir;

 private:
  std::string kept_ = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "/";
};

TEST_F(AtHome, ATildeIsTheHomeDirectoryInRecipesAndOptions) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 1;
  recipe.data.eval.clear();
  const std::string file = write_recipe_file(dir, recipe);
  const Finished trained =
      run_qlora(dir, {"train", file, "--set", "output.dir=~/runs/one", "--set",
                      "model.path=~/model", "--set", "data.train=[{path: ~/rows.jsonl}]"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(fs::exists(dir / "runs/one/adapter"));
  EXPECT_FALSE(fs::exists(dir / "~"));
  const Finished evaluated = run_qlora(
      dir, {"evaluate", "--model=~/model", "--adapter=~/runs/one/adapter", "--data=~/eval.jsonl"});
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.err;
  EXPECT_EQ(run_qlora(dir, {"inspect", "~/model"}).exit_code, 0);
  const Finished other = run_qlora(dir, {"train", file, "--set", "output.dir=~bob/run"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("output.dir: ~bob/run: only ~/ is expanded"));
}

class EvaluateOptions : public testing::Test {
 protected:
  // A run of two steps on alpaca rows whose instruction is called question.
  EvaluateOptions() {
    recipes::Recipe recipe = tiny_recipe(dir.path());
    recipe.train.max_steps = 2;
    recipe.data.eval.clear();
    rows = dir.write("alpaca.jsonl", R"({"question": "q", "output": "a"})"
                                     "\n"
                                     R"({"question": "r", "output": "b"})"
                                     "\n");
    recipe.data.train = {{rows, "alpaca", {{"instruction", "question"}}}};
    const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
    EXPECT_EQ(done.exit_code, 0) << done.err;
  }
  Finished evaluate(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"evaluate", dir / "run", "--json"});
    return run_qlora(dir, arguments);
  }
  TempDir dir;
  std::string rows;
};

TEST_F(EvaluateOptions, AreThoseOfARecipesDataset) {
  const std::string held_out = dir.write("held_out.jsonl", R"({"question": "s", "output": "c"})"
                                                           "\n");
  const Finished as_trained = evaluate({"--data", held_out});
  ASSERT_EQ(as_trained.exit_code, 0) << as_trained.err;
  EXPECT_THAT(as_trained.err, Not(HasSubstr("trained on")));
  const std::string named = dir.write("named.jsonl", R"({"task": "s", "reply": "c"})"
                                                     "\n");
  const Finished mapped = evaluate(
      {"--data", named, "--format", "alpaca", "--fields", "{instruction: task, output: reply}"});
  ASSERT_EQ(mapped.exit_code, 0) << mapped.err;
  EXPECT_EQ(nlohmann::json::parse(mapped.out)[0]["loss"],
            nlohmann::json::parse(as_trained.out)[0]["loss"]);
  const std::string pairs = dir.write("pairs.jsonl", R"({"prompt": "s", "completion": "c"})"
                                                     "\n");
  const Finished joined =
      evaluate({"--data", pairs, "--format", "completion", "--separator", R"("\n")"});
  EXPECT_EQ(joined.exit_code, 0) << joined.err;
  const Finished escaped =
      evaluate({"--data", pairs, "--format", "completion", "--separator", R"(\n)"});
  ASSERT_EQ(escaped.exit_code, 0) << escaped.err;
  EXPECT_EQ(nlohmann::json::parse(escaped.out)[0]["loss"],
            nlohmann::json::parse(joined.out)[0]["loss"]);
  const Finished spoken =
      evaluate({"--data", held_out, "--system", "Say \"hi\": always & go # now"});
  EXPECT_EQ(spoken.exit_code, 0) << spoken.err;
  const Finished styled = evaluate({"--data", held_out, "--set", "data.prompt_style=alpaca",
                                    "--set", "data.sequence_length=200"});
  ASSERT_EQ(styled.exit_code, 0) << styled.err;
  EXPECT_NE(nlohmann::json::parse(styled.out)[0]["loss"],
            nlohmann::json::parse(as_trained.out)[0]["loss"]);
}

TEST_F(EvaluateOptions, WrongOnesAreNamedAndTrainingRowsToldOf) {
  EXPECT_THAT(evaluate({"--data", rows}).err, HasSubstr("is evaluated on and trained on"));
  const Finished format = evaluate({"--data", rows, "--format", "llama3"});
  EXPECT_EQ(format.exit_code, 2);
  EXPECT_THAT(format.err, AllOf(HasSubstr("--format llama3"), HasSubstr("set format: chat")));
  const Finished fields = evaluate({"--data", rows, "--fields", "{question: instruction}"});
  EXPECT_EQ(fields.exit_code, 2);
  EXPECT_THAT(fields.err, HasSubstr("write ours: theirs"));
  const Finished key = evaluate({"--data", rows, "--set", "lora.rank=1"});
  EXPECT_EQ(key.exit_code, 2);
  EXPECT_THAT(key.err, HasSubstr("section data"));
  const Finished absent = evaluate({"--data", dir / "absent.jsonl"});
  EXPECT_EQ(absent.exit_code, 2);
  EXPECT_THAT(absent.err, AllOf(HasSubstr("absent.jsonl"), Not(HasSubstr("base model"))));
}

}  // namespace
}  // namespace qlora::test
