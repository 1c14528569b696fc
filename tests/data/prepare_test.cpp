#include "data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "base/error.h"
#include "data/dataset.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string completions(int count) {
  std::string rows;
  for (int i = 0; i < count; ++i) {
    rows += R"({"prompt": "p", "completion": ")" + std::to_string(1000 + i) + "\"}\n";
  }
  return rows;
}

DataOptions completion_options(const std::string& path) {
  DataOptions options;
  options.train = {{path, "completion", {}}};
  options.sequence_length = 100;
  return options;
}

std::string config_error(const DataOptions& options, const ByteTokenizer& tokenizer = {}) {
  try {
    prepare_datasets(options, tokenizer, nullptr, 1);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

TEST(Prepare, EvalFractionSetsWholeRowsAsideBySeed) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  DataOptions options = completion_options(dir.write("a.jsonl", completions(100)));
  options.eval_fraction = 0.1;
  options.on_overlength = OnOverlength::kSplit;
  options.sequence_length = 3;  // every row becomes pieces
  const PreparedData data = prepare_datasets(options, tokenizer, nullptr, 1);
  std::set<int64_t> train_rows, eval_rows;
  for (const ExampleView& e : data.train) train_rows.insert(e.row);
  for (const ExampleView& e : data.eval) eval_rows.insert(e.row);
  EXPECT_EQ(eval_rows.size(), 10u);
  EXPECT_EQ(train_rows.size(), 90u);
  for (const int64_t row : eval_rows) EXPECT_FALSE(train_rows.contains(row));
  EXPECT_EQ(prepare_datasets(options, tokenizer, nullptr, 1).fingerprint(), data.fingerprint());
  EXPECT_NE(prepare_datasets(options, tokenizer, nullptr, 2).fingerprint(), data.fingerprint());
}

TEST(Prepare, AnEvalFractionThatLeavesOneSideEmptyIsAnError) {
  const TempDir dir;
  DataOptions options = completion_options(dir.write("a.jsonl", completions(4)));
  options.eval_fraction = 0.1;
  EXPECT_THAT(config_error(options), HasSubstr("leaves no row to evaluate on"));
  options.eval_fraction = 0.9;
  EXPECT_THAT(config_error(options), HasSubstr("leaves no row to train on"));
}

TEST(Prepare, SeveralDatasetsKeepTheirSourceAndReports) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  DataOptions options = completion_options(dir.write("a.jsonl", completions(3)));
  options.train.push_back({dir.write("b.jsonl", completions(2)), "completion", {}});
  options.eval = {{dir.write("c.jsonl", completions(1)), "completion", {}}};
  const PreparedData data = prepare_datasets(options, tokenizer, nullptr, 1);
  ASSERT_EQ(data.train.size(), 5u);
  EXPECT_EQ(data.train[2].source, 0);
  EXPECT_EQ(data.train[3].source, 1);
  EXPECT_EQ(data.train[3].row, 0);
  ASSERT_EQ(data.train_reports.size(), 2u);
  EXPECT_EQ(data.train_reports[1].rows, 2);
  EXPECT_EQ(data.eval.size(), 1u);
}

TEST(Prepare, TwoBosTokensAreAnError) {
  const TempDir dir;
  EXPECT_THAT(config_error(completion_options(
                  dir.write("a.jsonl", R"({"prompt": "<s><s>p", "completion": "c"})"))),
              HasSubstr("two BOS tokens"));
}

TEST(Prepare, WhatIsHardlyMeantIsAWarningWhereTheAuditIsOff) {
  const TempDir dir;
  DataOptions options =
      completion_options(dir.write("a.jsonl", R"({"prompt": "<s><s>p", "completion": "c"})"));
  EXPECT_THAT(config_error(options), HasSubstr("train.audit=false"));
  options.audit = false;
  const PreparedData data = prepare_datasets(options, ByteTokenizer(), nullptr, 1);
  EXPECT_EQ(data.train.size(), 1u);
  EXPECT_THAT(data.warnings, testing::Contains(HasSubstr("two BOS tokens")));
}

TEST(Prepare, ADatasetOfWhichNothingIsLeftIsAnError) {
  const TempDir dir;
  DataOptions options = completion_options(dir.write("a.jsonl", completions(3)));
  options.sequence_length = 4;
  options.on_overlength = OnOverlength::kDrop;
  EXPECT_THAT(config_error(options),
              HasSubstr("no example is left to train on (3 rows; 3 too long"));
  options.audit = false;
  EXPECT_THAT(config_error(options), HasSubstr("no example is left to train on"));
  options.eval = options.train;
  options.train =
      completion_options(dir.write("b.jsonl", R"({"prompt": "", "completion": "c"})")).train;
  EXPECT_THAT(config_error(options), HasSubstr("a.jsonl: no example is left to evaluate on"));
}

TEST(Prepare, WhereNothingIsLeftTheCureIsThatOfWhatLeftItOut) {
  const TempDir dir;
  DataOptions options = completion_options(dir.write("a.jsonl", completions(3)));
  options.train[0].min_tokens = 1000;
  EXPECT_THAT(config_error(options),
              testing::AllOf(HasSubstr("(3 rows; 3 outside of min_tokens and max_tokens); change "
                                       "the data set's min_tokens or max_tokens"),
                             testing::Not(HasSubstr("sequence_length")),
                             testing::Not(HasSubstr("max_rows"))));
  options.train[0].max_rows = 2;
  EXPECT_THAT(config_error(options), HasSubstr("raise max_rows, by which the first 2 rows alone"));
  options = completion_options(dir.write("b.jsonl", R"({"prompt": "long", "completion": "c"})"));
  options.sequence_length = 2;
  options.on_overlength = OnOverlength::kTruncateRight;
  EXPECT_THAT(config_error(options),
              HasSubstr("(1 rows; 1 cut to where no token is supervised); raise "
                        "data.sequence_length or change data.on_overlength"));
}

TEST(Prepare, AnswersWhoseEndIsAlwaysCutOffAreAnError) {
  const TempDir dir;
  DataOptions options = completion_options(dir.write("a.jsonl", completions(3)));
  options.sequence_length = 4;
  options.on_overlength = OnOverlength::kTruncateRight;
  EXPECT_THAT(config_error(options),
              testing::AllOf(HasSubstr("every end was cut off"), HasSubstr("train.audit=false")));
  options.audit = false;
  EXPECT_THAT(prepare_datasets(options, ByteTokenizer(), nullptr, 1).warnings,
              testing::Contains(HasSubstr("every end was cut off")));
}

TEST(Prepare, AMaskWithNothingTrainedIsAnError) {
  const TempDir dir;
  DataOptions options =
      completion_options(dir.write("a.jsonl", R"({"input_ids": [1, 2], "mask": [1, 0]})"));
  options.train[0].format = "pretokenized";
  const auto said_of = [](const std::string& purpose) {
    return testing::AllOf(HasSubstr("no example is left to " + purpose +
                                    ": none of the tokens of its rows is supervised"),
                          HasSubstr("1 without a supervised token"));
  };
  EXPECT_THAT(config_error(options), said_of("train on"));
  options.eval = options.train;
  options.train[0].path = dir.write("b.jsonl", R"({"input_ids": [1, 2]})");
  EXPECT_THAT(config_error(options), said_of("evaluate on")) << "before the first step";
}

TEST(Prepare, AnEndOfTurnThatDoesNotStopGenerationIsToldAsAWarning) {
  const TempDir dir;
  ByteTokenizer tokenizer;
  tokenizer.special.end_of_generation = {ByteTokenizer::kEos};
  DataOptions options = completion_options(dir.write(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})"));
  options.train[0].format = "chat";
  const ChatTemplate chat_template(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  const PreparedData data = prepare_datasets(options, tokenizer, &chat_template, 1);
  EXPECT_EQ(data.train_reports[0].end_of_turns, 1);
  ASSERT_EQ(data.warnings.size(), 1u);
  EXPECT_THAT(data.warnings[0], HasSubstr("answers end with <|im_end|>"));
}

TEST(Prepare, WhatIsWrongWithSeveralDatasetsIsToldAtOnce) {
  const TempDir dir;
  DataOptions options = completion_options(dir.write("a.jsonl", completions(3) + "{\"x\": 1}\n"));
  options.train.push_back({dir / "none.jsonl", "completion", {}});
  options.eval = {{dir.write("c.jsonl", "\n"), "completion", {}}};
  EXPECT_THAT(config_error(options),
              AllOf(HasSubstr("a.jsonl:4: "), HasSubstr("none.jsonl: the dataset cannot be opened"),
                    HasSubstr("c.jsonl: a dataset must have at least one row")));
}

std::vector<std::string> warnings_of(const DataOptions& options) {
  return prepare_datasets(options, ByteTokenizer(), nullptr, 1).warnings;
}

std::string spaced(int first, int count) {
  std::string rows;
  for (int i = first; i < first + count; ++i)
    rows += R"({"prompt": "p ", "completion": ")" + std::to_string(i) + "\"}\n";
  return rows;
}

TEST(Prepare, EvaluatingOnTrainedRowsIsSaid) {
  const TempDir dir;
  DataOptions options = completion_options(dir.write("a.jsonl", spaced(0, 8)));
  options.eval = {{dir.write("b.jsonl", spaced(8, 4)), "completion", {}}};
  EXPECT_TRUE(warnings_of(options).empty());
  options.eval[0].path = dir / "../" + std::filesystem::path(dir.path()).filename().string() +
                         "/a.jsonl";  // another way to the same file
  ASSERT_EQ(warnings_of(options).size(), 1u);
  EXPECT_THAT(warnings_of(options)[0], HasSubstr("is evaluated on and trained on"));
  options.eval[0].path = dir.write("c.jsonl", spaced(6, 4));
  ASSERT_EQ(warnings_of(options).size(), 1u);
  EXPECT_THAT(warnings_of(options)[0], HasSubstr("2 of the 4 evaluation examples are trained on"));
}

TEST(Prepare, PromptsThatRunIntoTheirCompletionsAreToldWithTheCure) {
  const TempDir dir;
  const auto rows = [&](const std::string& prompt, const std::string& completion) {
    return completion_options(dir.write(
        "a.jsonl", R"({"prompt": ")" + prompt + R"(", "completion": ")" + completion + "\"}"));
  };
  ASSERT_EQ(warnings_of(rows("Answer:", "yes")).size(), 1u);
  EXPECT_THAT(warnings_of(rows("Answer:", "yes"))[0], HasSubstr("set separator: \"\\n\""));
  EXPECT_TRUE(warnings_of(rows("Answer:", " yes")).empty());
  EXPECT_TRUE(warnings_of(rows("<|assistant|>", "yes")).empty());
  DataOptions separated = rows("Answer:", "yes");
  separated.train[0].separator = " ";
  EXPECT_TRUE(warnings_of(separated).empty());
}

TEST(ReadFirstRows, TakesNoMoreThanItIsAskedFor) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write("a.jsonl", completions(5) + "{\"x\": 1}\n");
  DataOptions options = completion_options(path);
  const auto examples = read_first_rows(options.train[0], 3, 5, options, tokenizer, nullptr);
  ASSERT_EQ(examples.size(), 5U);
  EXPECT_EQ(examples[4].row, 4);
  EXPECT_EQ(examples[4].source, 3);
  EXPECT_THROW(read_first_rows(options.train[0], 0, 6, options, tokenizer, nullptr), FormatError);
  options.sequence_length = 4;
  EXPECT_THROW(read_first_rows(options.train[0], 0, 5, options, tokenizer, nullptr), FormatError);
  options.on_overlength = OnOverlength::kDrop;
  EXPECT_NO_THROW(read_first_rows(options.train[0], 0, 5, options, tokenizer, nullptr));
}

TEST(ReadFirstRows, OneThatIsBadLetsFurtherOnesBeLookedAt) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto refusal = [&](const std::string& rows) -> std::string {
    const DataOptions options = completion_options(dir.write("a.jsonl", rows));
    try {
      read_first_rows(options.train[0], 0, 5, options, tokenizer, nullptr);
    } catch (const FormatError& error) {
      return error.what();
    }
    return "no error";
  };
  const std::string bad = "{\"prompt\": \"p\", \"completion\": \"\"}\n";
  EXPECT_EQ(refusal(completions(5) + bad), "no error");
  EXPECT_THAT(
      refusal(bad + completions(900) + bad),
      AllOf(HasSubstr("a.jsonl:1: "), HasSubstr("a.jsonl:902: "), HasSubstr("2 of the 902 rows")));
  EXPECT_THAT(refusal(bad + completions(5000) + bad),
              AllOf(HasSubstr("a.jsonl:1: the field 'completion' is empty"), Not(HasSubstr("\n"))));
  std::string all;  // nothing more is to be found out
  for (int i = 0; i < 900; ++i) all += bad;
  EXPECT_THAT(refusal(all), HasSubstr("all of the first 5 rows"));
}

TEST(DataOptions, ValidateNamesTheKey) {
  DataOptions options;
  EXPECT_THAT(config_error(options), HasSubstr("data.train"));
  options = completion_options("x");
  options.eval_fraction = 1.0;
  EXPECT_THAT(config_error(options), HasSubstr("data.eval_fraction"));
  options = completion_options("x");
  options.sequence_length = 1;
  EXPECT_THAT(config_error(options), HasSubstr("data.sequence_length"));
  options = completion_options("x");
  options.prompt_style = "vicuna";
  EXPECT_THAT(config_error(options), HasSubstr("data.prompt_style"));
  options = completion_options("x");
  options.train[0].fields = {{"question", "q"}};
  EXPECT_THAT(config_error(options),
              HasSubstr("data.train[0].fields: format completion has the fields prompt"));
  options = completion_options("x.jsonl");
  options.cache = "maybe";
  EXPECT_THAT(config_error(options), HasSubstr("data.cache must be auto, true or false"));
  options = completion_options("x");
  options.train[0].format = "text";
  options.train[0].separator = "\n";
  EXPECT_THAT(config_error(options), HasSubstr("data.train[0].separator"));
  options = completion_options("x");
  options.eval = options.train;
  options.eval_fraction = 0.5;
  EXPECT_THAT(config_error(options), HasSubstr("got both"));
  options = completion_options("");
  EXPECT_THAT(config_error(options), HasSubstr("data.train[0].path"));
}

}  // namespace
}  // namespace qlora::data
