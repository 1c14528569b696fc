#include "data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/stop.h"
#include "data/chat_renderer.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/chat_ml.h"
#include "tests/support/error_of.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::error_of;
using test::kChatMl;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;

// ChatML, but what stands before </think> is left out of all turns but the last.
const char* kThinkingTemplate =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('</think>')[-1] }}{% endif "
    "%}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

DataOptions data_options(int64_t sequence_length = 1000) {
  DataOptions options;
  options.sequence_length = sequence_length;
  return options;
}

std::string chat_row(const std::string& question, const std::string& answer) {
  return R"({"messages": [{"role": "user", "content": ")" + question +
         R"("}, {"role": "assistant", "content": ")" + answer + "\"}]}\n";
}

std::vector<std::string> trained(const ByteTokenizer& tokenizer,
                                 const std::vector<Example>& examples) {
  std::vector<std::string> texts;
  for (const Example& e : examples) {
    texts.push_back(test::supervised_text(tokenizer, e.tokens, e.supervised));
  }
  return texts;
}

Dataset read(const std::string& path, const std::string& format, const DataOptions& options,
             const ByteTokenizer& tokenizer, const char* template_text = kChatMl) {
  const ChatTemplate chat_template(template_text);
  return read_dataset({path, format, {}}, 0, options, tokenizer, &chat_template);
}

TEST(Dataset, ItIsLeftBetweenTwoRowsWhenAStopIsWanted) {
  const TempDir dir;
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  const DatasetOptions rows{dir.write("rows.jsonl", chat_row("a", "b")), "chat", {}};
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  EXPECT_THROW(read_dataset(rows, 0, data_options(), tokenizer, &chat_template), Stopped);
}

TEST(Dataset, AChatRowTrainsItsAnswerAndItsEndOfTurn) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write("a.jsonl", chat_row("q", "a"));
  const Dataset dataset = read(path, "chat", data_options(), tokenizer);
  ASSERT_EQ(dataset.examples.size(), 1u);
  EXPECT_EQ(tokenizer.decode(dataset.examples[0].tokens, false),
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n");
  EXPECT_EQ(trained(tokenizer, dataset.examples), (std::vector<std::string>{"a<|im_end|>"}));
  EXPECT_EQ(dataset.report.rows, 1);
  EXPECT_EQ(dataset.report.supervised_tokens, 2);
  EXPECT_EQ(dataset.report.end_of_turns, 1);
  EXPECT_EQ(dataset.report.end_of_turn_ids, (std::set<TokenId>{ByteTokenizer::kEnd}));
}

TEST(Dataset, AllTurnsOfAConversationAreTrainedAndTurnsOfWeightZeroAreNot) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write(
      "a.jsonl",
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "1"},)"
      R"( {"role": "assistant", "content": "one"}, {"role": "user", "content": "2"},)"
      R"( {"role": "assistant", "content": "two", "weight": 0}, {"role": "user", "content": "3"},)"
      R"( {"role": "assistant", "content": "three"}, {"role": "user", "content": "bye"}]})");
  const Dataset dataset = read(path, "chat", data_options(), tokenizer);
  EXPECT_EQ(trained(tokenizer, dataset.examples),
            (std::vector<std::string>{"one<|im_end|>|three<|im_end|>"}));
}

TEST(Dataset, TurnsThatTheTemplateRewritesGetTheirOwnExamples) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "hm</think>one"},)"
      R"( {"role": "user", "content": "2"}, {"role": "assistant", "content": "so</think>two"}]})");
  const Dataset dataset = read(path, "chat", data_options(), tokenizer, kThinkingTemplate);
  EXPECT_EQ(trained(tokenizer, dataset.examples),
            (std::vector<std::string>{"hm</think>one<|im_end|>", "so</think>two<|im_end|>"}));
  EXPECT_EQ(dataset.report.rows, 1);
  EXPECT_EQ(dataset.report.rendered, 2);
}

TEST(Dataset, ATemplateWhoseAnswersDoNotFollowItsGenerationPromptIsRefused) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write("a.jsonl", chat_row("q", "a"));
  const std::string template_text =
      std::string(kChatMl) + "{% if add_generation_prompt %}<think>\n{% endif %}";
  const auto message = error_of<FormatError>(
      [&] { read(path, "chat", data_options(), tokenizer, template_text.c_str()); });
  EXPECT_THAT(message, HasSubstr("a.jsonl:1: "));
  EXPECT_THAT(message, HasSubstr("its generation prompt goes on with \"<think>\\n\""));
}

TEST(Dataset, TrainOnAllTrainsEverythingButTheFirstToken) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  DataOptions options = data_options();
  options.train_on = TrainOn::kAll;
  for (const auto& [format, row] : std::map<std::string, std::string>{
           {"chat", chat_row("q", "a")}, {"completion", R"({"prompt": "p", "completion": "c"})"}}) {
    const Dataset dataset = read(dir.write(format, row), format, options, tokenizer);
    ASSERT_EQ(dataset.examples.size(), 1u);
    EXPECT_EQ(dataset.examples[0].num_supervised(), dataset.examples[0].length() - 1);
    EXPECT_EQ(dataset.examples[0].supervised[0], 0);
    EXPECT_GE(dataset.report.end_of_turns, 1);
  }
}

TEST(Dataset, CompletionsEndWithEos) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write("a.jsonl", R"({"prompt": "p", "completion": "c"})");
  EXPECT_EQ(trained(tokenizer, read(path, "completion", data_options(), tokenizer).examples),
            (std::vector<std::string>{"c</s>"}));
}

TEST(Dataset, TextIsTrainedWholeWithOneBosAndOneEos) {
  const TempDir dir;
  ByteTokenizer tokenizer;
  tokenizer.adds_bos = true;
  const auto path = dir.write("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"<s>cd</s>\"}\n");
  const Dataset dataset = read(path, "text", data_options(), tokenizer);
  EXPECT_EQ(dataset.examples[0].tokens,
            (std::vector<TokenId>{ByteTokenizer::kBos, 'a', 'b', ByteTokenizer::kEos}));
  EXPECT_EQ(dataset.examples[1].tokens,
            (std::vector<TokenId>{ByteTokenizer::kBos, 'c', 'd', ByteTokenizer::kEos}));
  EXPECT_EQ(dataset.report.supervised_tokens, 6);
}

TEST(Dataset, AlpacaRowsFollowThePromptStyle) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write("a.json", R"([{"instruction": "I", "input": "", "output": "O"}])");
  EXPECT_EQ(trained(tokenizer, read(path, "alpaca", data_options(), tokenizer).examples),
            (std::vector<std::string>{"O<|im_end|>"}));
  DataOptions options = data_options();
  options.prompt_style = "alpaca";
  const Dataset dataset = read_dataset({path, "alpaca", {}}, 0, options, tokenizer, nullptr);
  EXPECT_EQ(trained(tokenizer, dataset.examples), (std::vector<std::string>{"O</s>"}));
  EXPECT_THAT(error_of<ConfigError>([&] {
                read_dataset({path, "alpaca", {}}, 0, data_options(), tokenizer, nullptr);
              }),
              AllOf(HasSubstr("no chat template; set data.chat_template"),
                    HasSubstr("of the model: chatml, llama-2, alpaca, vicuna, zephyr, mistral)")));
}

TEST(Dataset, TheOrderOfRowsIsKeptWhateverTheNumberOfThreads) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  std::string rows;
  for (int i = 0; i < 5000; ++i) rows += chat_row("q", std::to_string(i));  // more than one chunk
  const auto path = dir.write("a.jsonl", rows);
  const int threads = omp_get_max_threads();
  std::set<std::string> fingerprints;
  for (const int used : {1, 3}) {
    omp_set_num_threads(used);
    const Dataset dataset = read(path, "chat", data_options(), tokenizer);
    ASSERT_EQ(dataset.examples.size(), 5000u);
    for (size_t i = 0; i < dataset.examples.size(); ++i) {
      EXPECT_EQ(dataset.examples[i].row, static_cast<int64_t>(i));
    }
    EXPECT_EQ(trained(tokenizer, {dataset.examples[4321]})[0], "4321<|im_end|>");
    fingerprints.insert(examples_fingerprint(dataset.examples));
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(fingerprints.size(), 1u);
}

TEST(Dataset, AnEmptyFileAndAMissingOneAreErrors) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  EXPECT_THAT(error_of<FormatError>(
                  [&] { read(dir.write("a.jsonl", "\n"), "chat", data_options(), tokenizer); }),
              HasSubstr("at least one row"));
  EXPECT_THROW(read(dir / "none.jsonl", "chat", data_options(), tokenizer), Error);
}

TEST(Dataset, TokenIdsBeyondTheVocabularyAreErrors) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write("a.jsonl", R"({"input_ids": [1, 260]})");
  EXPECT_THAT(error_of<FormatError>([&] { read(path, "pretokenized", data_options(), tokenizer); }),
              HasSubstr("vocabulary size 260"));
}

TEST(Dataset, ATokenThatTheModelHasNoEmbeddingForIsNamedWithItsRow) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  const auto refusal = [&](const std::string& rows, const char* format, int64_t embedding_rows) {
    const std::string path = dir.write("a.jsonl", rows);
    return error_of<FormatError>([&] {
      read_dataset({path, format, {}}, 0, data_options(), tokenizer, &chat_template,
                   embedding_rows);
    });
  };
  const std::string texts = "{\"text\": \"ab\"}\n{\"text\": \"<|im_end|>\"}\n";
  EXPECT_EQ(refusal(texts, "text", 260), "no error");
  EXPECT_THAT(refusal(texts, "text", 259),
              AllOf(HasSubstr("a.jsonl:2: token 0 is '<|im_end|>' (id 259)"),
                    HasSubstr("259 rows, for the ids 0 to 258")));
  EXPECT_THAT(refusal(texts, "text", 257),  // the appended EOS
              HasSubstr("a.jsonl:1: token 2 is '</s>' (id 257)"));
  EXPECT_THAT(refusal(R"({"input_ids": [1, 258, 2]})", "pretokenized", 258),
              HasSubstr("a.jsonl:1: token 1 is '<|im_start|>' (id 258)"));
  EXPECT_THAT(refusal(R"({"prompt": "<|im_end|>", "completion": "c"})", "completion", 259),
              HasSubstr("(id 259)"));
  const auto path = dir.write("b.jsonl", chat_row("q", "a"));
  EXPECT_THAT(error_of<FormatError>([&] {
                read_prompts_and_answers({path, "chat", {}}, 0, data_options(), tokenizer,
                                         &chat_template, 258);
              }),
              HasSubstr("b.jsonl:1: token 0 is '<|im_start|>' (id 258)"));
}

std::vector<std::string> warnings_of(const std::string& path, const char* format,
                                     const DataOptions& options = data_options()) {
  const ByteTokenizer tokenizer;
  return dataset_warnings(read(path, format, options, tokenizer).report, tokenizer);
}

TEST(Dataset, KeysThatMaySayWhatIsTrainedAreNamedOnceAFile) {
  const TempDir dir;
  const auto path = dir.write(
      "a.jsonl", R"({"prompt": "p ", "completion": "c", "sample_weight": 2, "mood": "m"})"
                 "\n"
                 R"({"prompt": "p ", "completion": "c", "score": 1, "sample_weight": 1, "id": 3})");
  const auto warnings = warnings_of(path, "completion");
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("a.jsonl: sample_weight, score of the rows are not read"));
  const ByteTokenizer tokenizer;
  EXPECT_THAT(to_text(read(path, "completion", data_options(), tokenizer).report),
              HasSubstr("keys not read: mood, sample_weight, score"));
}

TEST(Dataset, AColumnThatFieldsForgetIsNamed) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  const auto path = dir.write("a.jsonl", R"({"question": "q", "context": "c", "answer": "a"})");
  const Dataset dataset =
      read_dataset({path, "alpaca", {{"instruction", "question"}, {"output", "answer"}}}, 0,
                   data_options(), tokenizer, &chat_template);
  const auto warnings = dataset_warnings(dataset.report, tokenizer);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("the rows' context is not read; if it is what format alpaca "
                                     "calls input, set fields: {input: context}"));
}

TEST(Dataset, AFieldOfAKeyThatNoRowHasIsNamed) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  const auto path = dir.write("a.jsonl",
                              "{\"instruction\": \"q\", \"context\": \"c\", \"output\": \"a\"}\n"
                              "{\"instruction\": \"q\", \"setup\": \"s\", \"output\": \"a\"}\n");
  const auto warnings = [&](std::map<std::string, std::string> fields) {
    const DatasetOptions dataset{path, "alpaca", std::move(fields)};
    return dataset_warnings(
        read_dataset(dataset, 0, data_options(), tokenizer, &chat_template).report, tokenizer);
  };
  EXPECT_THAT(warnings({{"input", "contxt"}, {"system", "setup"}}),
              testing::ElementsAre(AllOf(HasSubstr("none of the rows has the key contxt"),
                                         HasSubstr("without input (keys not read: context)"))));
  EXPECT_THAT(warnings({{"input", "context"}, {"system", "sistem"}, {"history", "none"}}),
              testing::ElementsAre(HasSubstr("fields: {system: sistem} names")));
  EXPECT_TRUE(warnings({{"input", "context"}, {"system", "setup"}}).empty());
}

TEST(Dataset, AKeyThatMayBelongToAPromptOfOneFieldGetsAWarning) {
  const TempDir dir;
  const auto path =
      dir.write("a.jsonl", R"({"prompt": "p ", "completion": "c", "system": "s", "messages": []})");
  EXPECT_THAT(
      warnings_of(path, "completion"),
      testing::ElementsAre(HasSubstr("a.jsonl: system of the rows is not read; what belongs "
                                     "to the prompt must stand in the one field")));
}

TEST(Dataset, MarksThatAreNotObeyedAreTold) {
  const TempDir dir;
  const auto marked = dir.write(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "1",)"
      R"( "train": false}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "2"}]})");
  EXPECT_TRUE(warnings_of(marked, "chat").empty());
  DataOptions all = data_options();
  all.train_on = TrainOn::kAll;
  ASSERT_EQ(warnings_of(marked, "chat", all).size(), 1u);
  EXPECT_THAT(warnings_of(marked, "chat", all)[0], HasSubstr("train_on: all"));
  const auto user =
      dir.write("b.jsonl", R"({"messages": [{"role": "user", "content": "q", "train": true},)"
                           R"( {"role": "assistant", "content": "a"}]})");
  ASSERT_EQ(warnings_of(user, "chat").size(), 1u);
  EXPECT_THAT(warnings_of(user, "chat")[0], HasSubstr("not an assistant's"));
}

TEST(Fingerprint, ChangesWithAnyTokenMaskOrBoundary) {
  const std::vector<Example> base = {{{1, 2, 3}, {0, 1, 1}}, {{4, 5}, {0, 1}}};
  std::set<std::string> seen = {examples_fingerprint(base)};
  auto changed = base;
  changed[0].tokens[2] = 9;
  seen.insert(examples_fingerprint(changed));
  changed = base;
  changed[0].supervised[1] = 0;
  seen.insert(examples_fingerprint(changed));
  changed = {{{1, 2, 3, 4, 5}, {0, 1, 1, 0, 1}}};
  seen.insert(examples_fingerprint(changed));
  changed = {base[1], base[0]};
  seen.insert(examples_fingerprint(changed));
  EXPECT_EQ(seen.size(), 5u);
  EXPECT_EQ(examples_fingerprint(base), examples_fingerprint(base));
}

TEST(PromptsAndAnswers, AreTheLastTurnOfEachRow) {
  const TempDir dir;
  ByteTokenizer tokenizer;
  tokenizer.adds_bos = true;
  const ChatTemplate chat_template(kChatMl);
  const auto path = dir.write(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "one"},)"
      R"( {"role": "user", "content": "2"}, {"role": "assistant", "content": "two"}]})");
  const auto pairs =
      read_prompts_and_answers({path, "chat", {}}, 0, data_options(), tokenizer, &chat_template);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].answer, "two");
  EXPECT_EQ(pairs[0].prompt,
            conversation_prompt(
                Json::parse(
                    R"([{"role": "user", "content": "1"}, {"role": "assistant", "content": "one"},)"
                    R"( {"role": "user", "content": "2"}])"),
                chat_template, tokenizer));
  EXPECT_EQ(pairs[0].prompt.front(), ByteTokenizer::kBos);
  EXPECT_EQ(pairs[0].location, path + ":1");
  const auto text = dir.write("b.jsonl", R"({"text": "a"})");
  EXPECT_THROW(
      read_prompts_and_answers({text, "text", {}}, 0, data_options(), tokenizer, &chat_template),
      ConfigError);
}

TEST(PromptsAndAnswers, AreOfTheRowsThatHaveAnExample) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const auto path = dir.write("a.jsonl",
                              "{\"prompt\": \"aaaaaaaa\", \"completion\": \"bbbb\"}\n"
                              "{\"prompt\": \"a\", \"completion\": \"b\"}\n"
                              "{\"prompt\": \"aa\", \"completion\": \"b\"}\n");
  const DatasetOptions rows{path, "completion", {}};
  DataOptions options = data_options(8);
  const auto asked = [&] {
    std::vector<int64_t> numbers;
    for (const auto& pair : read_prompts_and_answers(rows, 1, options, tokenizer, nullptr)) {
      numbers.push_back(pair.row);
      EXPECT_EQ(pair.source, 1);
    }
    std::vector<int64_t> examples;
    for (const Example& example : read_dataset(rows, 1, options, tokenizer, nullptr).examples)
      examples.push_back(example.row);
    EXPECT_EQ(numbers, examples);
    return numbers;
  };
  options.on_overlength = OnOverlength::kDrop;
  EXPECT_EQ(asked(), (std::vector<int64_t>{1, 2}));
  options.on_overlength = OnOverlength::kTruncateRight;  // nothing is left of the first's answer
  EXPECT_EQ(asked(), (std::vector<int64_t>{1, 2}));
  options.on_overlength = OnOverlength::kTruncateLeft;
  EXPECT_EQ(asked(), (std::vector<int64_t>{0, 1, 2}));
}

}  // namespace
}  // namespace qlora::data
