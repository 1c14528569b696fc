// train.sample_prompts: answers on the way, which leave no trace in the run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run/samples.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/child_process.h"
#include "tests/support/event_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::read_file;
using test::TempDir;
using test::tiny_recipe;
using testing::ElementsAre;
using testing::HasSubstr;

const std::atomic<bool> kNever{false};

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_file(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

std::vector<int64_t> sampled_steps(const std::string& run) {
  std::vector<int64_t> steps;
  for (const nlohmann::json& line : lines_of(run + "/samples.jsonl")) steps.push_back(line["step"]);
  return steps;
}

Recipe sampling_recipe(const std::string& directory) {
  Recipe recipe = tiny_recipe(directory);
  recipe.train.sample_prompts = {"say 4", "say\n\"9\""};
  recipe.train.sample_every = 3;
  return recipe;
}

std::string bytes_of(const std::string& run, const char* name) {
  return read_file(run + "/" + name);
}

TEST(Samples, ChangeNoBitOfTheTraining) {
  TempDir dir;
  const Recipe sampling = sampling_recipe(dir.path());
  Recipe plain = sampling;
  plain.train.sample_prompts.clear();
  plain.train.sample_every = 0;
  plain.output.dir = dir / "plain";
  finetune(sampling, kNever);
  finetune(plain, kNever);
  for (const char* name :
       {"adapter/adapter_model.safetensors", "checkpoint-000006/optimizer.safetensors"})
    EXPECT_EQ(bytes_of(sampling.output.dir, name), bytes_of(plain.output.dir, name)) << name;
  EXPECT_FALSE(fs::exists(dir / "plain/samples.jsonl"));
}

TEST(Samples, AreTakenBeforeTheFirstStepOnTheWayAndAtTheEnd) {
  TempDir dir;
  Recipe recipe = sampling_recipe(dir.path());
  recipe.train.max_steps = 5;
  finetune(recipe, kNever);
  EXPECT_THAT(sampled_steps(recipe.output.dir), ElementsAre(0, 3, 5));
  const nlohmann::json first = lines_of(dir / "run/samples.jsonl")[0]["samples"];
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[1]["prompt"], "say\n\"9\"");
  EXPECT_TRUE(first[1]["answer"].is_string());
  EXPECT_THAT(read_file(dir / "run/log.txt"), HasSubstr(R"(sample at step 5: "say\n\"9\"" -> )"));
}

// As Markdown that shows it as it is.
std::string in_markdown(const std::string& text) {
  std::string lines = "    ";
  for (const char c : text) lines += c == '\n' ? "\n    " : std::string(1, c);
  return lines;
}

TEST(Samples, AreTextsOfTensorboardAsInTheirFile) {
  TempDir dir;
  const Recipe recipe = sampling_recipe(dir.path());
  finetune(recipe, kNever);
  const auto texts = test::texts_of(test::event_file_in(recipe.output.dir));
  size_t next = 0;
  for (const nlohmann::json& line : lines_of(dir / "run/samples.jsonl"))
    for (size_t i = 0; i < line["samples"].size(); ++i, ++next) {
      ASSERT_LT(next, texts.size());
      const nlohmann::json& sample = line["samples"][i];
      EXPECT_EQ(texts[next].step, line["step"].get<int64_t>());
      EXPECT_EQ(texts[next].tag, "samples/" + std::to_string(i + 1));
      EXPECT_EQ(texts[next].plugin, "text");
      EXPECT_EQ(texts[next].text, in_markdown(sample["prompt"].get<std::string>()) +
                                      "\n\n**answer**\n\n" +
                                      in_markdown(sample["answer"].get<std::string>()));
    }
  EXPECT_EQ(next, texts.size());
  EXPECT_EQ(next, 2U * 3U);  // two prompts at the steps 0, 3 and 6
}

TEST(Samples, WithoutAnIntervalAreThoseBeforeAndAfter) {
  TempDir dir;
  Recipe recipe = sampling_recipe(dir.path());
  recipe.train.sample_every = 0;
  finetune(recipe, kNever);
  EXPECT_THAT(sampled_steps(recipe.output.dir), ElementsAre(0, 6));
}

TEST(Samples, AResumedRunWritesTheSameOnes) {
  TempDir dir;
  Recipe recipe = sampling_recipe(dir.path());
  recipe.train.sample_every = 1;
  finetune(recipe, kNever);
  const std::string whole = read_file(dir / "run/samples.jsonl");
  // As a kill behind the samples of step 3 leaves it, one of them cut off.
  fs::remove_all(dir / "run/adapter");
  fs::remove_all(dir / "run/checkpoint-000004");
  fs::remove_all(dir / "run/checkpoint-000006");
  fs::remove(dir / "run/best");
  const size_t cut = whole.find("{\"step\":4");
  ASSERT_NE(cut, std::string::npos);
  dir.write("run/samples.jsonl", whole.substr(0, cut + 20));
  finetune(recipe, kNever);
  EXPECT_EQ(read_file(dir / "run/samples.jsonl"), whole);
}

TEST(Samples, PromptsComeFromAFileOfLinesOrOfRows) {
  TempDir dir;
  trainer::TrainOptions options;
  options.sample_prompts = {dir.write("prompts.txt", "one\n\ntwo\r\n")};
  auto prompts = read_sample_prompts(options);
  ASSERT_EQ(prompts.size(), 2U);
  EXPECT_EQ(prompts[1].text, "two");
  options.sample_prompts = {dir.write("prompts.jsonl", R"("three"
{"prompt": "four"}
{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "five"}, {"role": "assistant", "content": "a"}]}
)")};
  prompts = read_sample_prompts(options);
  ASSERT_EQ(prompts.size(), 3U);
  EXPECT_EQ(prompts[0].text, "three");
  EXPECT_EQ(prompts[2].text, "five");
  EXPECT_EQ(prompts[2].messages.size(), 2U);
  options.sample_prompts = {"What is in notes.txt", "?"};
  EXPECT_EQ(read_sample_prompts(options).size(), 2U);
}

std::vector<std::string> texts_in(const std::string& path) {
  trainer::TrainOptions options;
  options.sample_prompts = {path};
  std::vector<std::string> texts;
  for (const PromptText& prompt : read_sample_prompts(options)) texts.push_back(prompt.text);
  return texts;
}

// By gzip itself, which gives the archive the name with .gz.
std::string packed(const std::string& path) {
  EXPECT_EQ(test::ChildProcess("/bin/gzip", {path}, fs::path(path).parent_path()).wait().exit_code,
            0);
  return path + ".gz";
}

TEST(Samples, PromptsComeFromTheKindsOfFilesThatRowsComeFrom) {
  const TempDir dir;
  const std::string objects = R"({"prompt": "one"}, {"prompt": "two"})";
  EXPECT_THAT(texts_in(dir.write("a.json", "[" + objects + "]")), ElementsAre("one", "two"));
  EXPECT_THAT(texts_in(dir.write("b.json", R"(["one", "two"])")), ElementsAre("one", "two"));
  EXPECT_THAT(texts_in(dir.write("c.ndjson", "\n \"one\"\n{\"prompt\": \"two\"}\n")),
              ElementsAre("one", "two"));
  EXPECT_THAT(texts_in(dir.write("d.csv", "id,prompt\n1,\"one, two\"\n2,three\n")),
              ElementsAre("one, two", "three"));
  EXPECT_THAT(texts_in(dir.write("e.tsv",
                                 "messages\n\"[{\"\"role\"\": \"\"user\"\", "
                                 "\"\"content\"\": \"\"hi\"\"}]\"\n")),
              ElementsAre("hi"));
  EXPECT_THAT(texts_in(packed(dir.write("f.txt", "\xef\xbb\xbfone\r\n\ntwo"))),
              ElementsAre("one", "two"));
  EXPECT_THAT(texts_in(packed(dir.write("g.jsonl", "{\"prompt\": \"one\"}\n"))),
              ElementsAre("one"));
}

TEST(Samples, AnEntryIsAFileByItsNameAndOneOfAnotherKindIsRefusedWithTheKindsThatAreRead) {
  trainer::TrainOptions options;
  const auto is_file = [&](const std::string& entry) {
    options.sample_prompts = {entry};
    return options.samples_from_file();
  };
  for (const char* extension : {".txt", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet",
                                ".arrow", ".feather", ".txt.gz", ".JSONL.zst"})
    EXPECT_TRUE(is_file(std::string("prompts") + extension)) << extension;
  EXPECT_TRUE(is_file("my prompts.txt"));
  for (const char* text : {"Write a package.json", "prompts.md", "What is 7 times 8?", "gz"})
    EXPECT_FALSE(is_file(text)) << text;
  const TempDir dir;
  dir.write("prompts.md", "one\n");
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.sample_prompts = {"prompts.md"};  // beside its recipe
  const Recipe read = read_recipe(dir.write("recipe.yaml", write_recipe(recipe)));
  EXPECT_THAT(
      [&] { read_sample_prompts(read.train); },
      testing::ThrowsMessage<ConfigError>(testing::AllOf(
          HasSubstr("prompts.md is a file, whose prompts are read if"), HasSubstr(".parquet"))));
}

// A recipe means the same wherever the program is started.
TEST(Samples, APromptWhoseWordsNameAFileOfTheWorkingDirectoryIsAPrompt) {
  const TempDir dir, elsewhere;
  elsewhere.write("Makefile", "all:\n");
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.sample_prompts = {"Makefile"};
  const Recipe read = read_recipe(dir.write("recipe.yaml", write_recipe(recipe)));
  const fs::path before = fs::current_path();
  fs::current_path(elsewhere.path());
  std::vector<PromptText> prompts;
  EXPECT_NO_THROW(prompts = read_sample_prompts(read.train));
  fs::current_path(before);
  ASSERT_EQ(prompts.size(), 1U);
  EXPECT_EQ(prompts.front().text, "Makefile");
}

TEST(Samples, WhatIsNoPromptIsNamedWithFileAndLine) {
  TempDir dir;
  trainer::TrainOptions options;
  const auto refusal = [&]() -> std::string {
    try {
      read_sample_prompts(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  options.sample_prompts = {dir.write("prompts.jsonl", "\"one\"\n{\"text\": 1}\n")};
  EXPECT_THAT(refusal(), HasSubstr("prompts.jsonl:2: "));
  options.sample_prompts = {
      dir.write("prompts.jsonl", R"({"messages": [{"role": "assistant", "content": "a"}]})")};
  EXPECT_THAT(refusal(), HasSubstr("prompts.jsonl:1: "));
  options.sample_prompts = {dir.write("prompts.txt", std::string("h\0i\0\n\0", 6))};
  EXPECT_THAT(refusal(), HasSubstr("UTF-16"));
  options.sample_prompts = {dir / "absent.txt"};
  EXPECT_THAT(refusal(), HasSubstr("train.sample_prompts: there is no file"));
}

TEST(Samples, APromptThatLeavesNoRoomForAnAnswerIsNamed) {
  TempDir dir;
  Recipe recipe = sampling_recipe(dir.path());
  recipe.train.sample_prompts.push_back(std::string(3000, 'x'));
  EXPECT_THAT([&] { finetune(recipe, kNever); },
              testing::ThrowsMessage<ConfigError>(
                  testing::AllOf(HasSubstr("train.sample_prompts: prompt 3 has 30"),
                                 HasSubstr("leaves no room for an answer within the model's"))));
}

TEST(Samples, APromptThatIsRefusedCostsNoFinishedRunThatWasToBeReplaced) {
  TempDir dir;
  Recipe recipe = sampling_recipe(dir.path());
  recipe.train.max_steps = 2;
  finetune(recipe, kNever);
  const std::string before = bytes_of(recipe.output.dir, "adapter/adapter_model.safetensors");
  recipe.output.overwrite = true;
  recipe.train.sample_prompts.push_back(std::string(3000, 'x'));
  EXPECT_THROW(finetune(recipe, kNever), ConfigError);
  ASSERT_TRUE(fs::exists(dir / "run/adapter/adapter_model.safetensors"));
  EXPECT_EQ(bytes_of(recipe.output.dir, "adapter/adapter_model.safetensors"), before);
}

TEST(Samples, AnIntervalNeedsPromptsAndAFileIsFoundBesideItsRecipe) {
  trainer::TrainOptions options;
  options.max_steps = 1;
  options.sample_every = 5;
  EXPECT_THROW(options.validate(), ConfigError);
  options.sample_prompts = {"a", " "};
  EXPECT_THROW(options.validate(), ConfigError);
  options.sample_prompts = {"a"};
  EXPECT_NO_THROW(options.validate());
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.sample_prompts = {"prompts.txt"};
  const Recipe read = read_recipe(dir.write("recipe.yaml", write_recipe(recipe)));
  EXPECT_EQ(read.train.sample_prompts.front(), dir / "prompts.txt");
}

}  // namespace
}  // namespace qlora::recipes
