// Rows of two answers to one prompt: what is read of them, which tokens are compared, and that the
// two stay together.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "base/seed.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/overlength.h"
#include "data/readers/reader.h"
#include "data/tokenize_row.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/chat_ml.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::kChatMl;
using testing::AllOf;
using testing::HasSubstr;

Record read(const std::string& json, std::map<std::string, std::string> fields = {},
            const std::string& separator = "") {
  const Json row = Json::parse(json);
  const DatasetOptions dataset{"file.jsonl", "preference", std::move(fields), separator};
  return find_format("preference").read(Row(row, dataset), {});
}

std::string error(const std::string& json, std::map<std::string, std::string> fields = {}) {
  try {
    read(json, std::move(fields));
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

// "prompt|chosen|rejected"
std::string texts(const std::string& json, std::map<std::string, std::string> fields = {},
                  const std::string& separator = "") {
  const auto pair = std::get<TextPair>(read(json, std::move(fields), separator));
  return pair.prompt + "|" + pair.chosen + "|" + pair.rejected;
}

// The contents of the messages, "prompt prompt|chosen|rejected".
std::string contents(const std::string& json) {
  const auto pair = std::get<ConversationPair>(read(json));
  const auto join = [](const Json& messages, size_t begin, size_t end) {
    std::string text;
    for (size_t i = begin; i < end; ++i)
      text += (i == begin ? "" : " ") + messages[i]["content"].get<std::string>();
    return text;
  };
  const Json &chosen = pair.chosen.messages, &rejected = pair.rejected.messages;
  return join(chosen, 0, pair.prompt_messages) + "|" +
         join(chosen, pair.prompt_messages, chosen.size()) + "|" +
         join(rejected, pair.prompt_messages, rejected.size());
}

TEST(ReadPreference, TakesTextsAsTheyStand) {
  EXPECT_EQ(texts(R"({"prompt": "2+2=", "chosen": " 4", "rejected": " 5", "id": 3})"),
            "2+2=| 4| 5");
  EXPECT_EQ(texts(R"({"q": "2+2", "a": "4", "b": "5"})",
                  {{"prompt", "q"}, {"chosen", "a"}, {"rejected", "b"}}, "="),
            "2+2=|4|5");
}

TEST(ReadPreference, WithoutAPromptItIsWhatBothTextsBeginWith) {
  EXPECT_EQ(texts(R"({"chosen": "The sky is blue", "rejected": "The sky is green"})"),
            "The sky is| blue| green");
  EXPECT_EQ(texts(R"({"chosen": "Q: a", "rejected": "Q: ab"})"), "Q:| a| ab");
  // No character is cut: ä and ö have their first byte in common.
  EXPECT_EQ(texts(R"({"chosen": "n:ä", "rejected": "n:ö"})"), "n:|ä|ö");
  EXPECT_THAT(error(R"({"chosen": "yes", "rejected": "no"})"), HasSubstr("begin with no common"));
}

TEST(ReadPreference, WhatBothAnswersBeginWithIsNoPromptWhereAnotherKeyMayBeIt) {
  const std::string answers = R"("chosen": "The answer is 4.", "rejected": "The answer is 5."})";
  for (const char* key : {"question", "instruction", "Query", "messages", "context"}) {
    const std::string row = fmt::format(R"({{"{}": "2+2?", )", key) + answers;
    EXPECT_THAT(error(row), AllOf(HasSubstr(fmt::format("no 'prompt', but '{}',", key)),
                                  HasSubstr("fields: {prompt: ...}")));
    EXPECT_EQ(texts(row, {{"prompt", key}}), "2+2?|The answer is 4.|The answer is 5.");
    EXPECT_EQ(texts(row, {{"prompt", "none"}}), "The answer is| 4.| 5.");
  }
  EXPECT_THAT(error(R"({"instruction": "Add.", "input": "2, 2", )" + answers),
              HasSubstr("but 'instruction' and 'input', which"));
  EXPECT_THAT(error("{" + answers, {{"prompt", "qestion"}}),
              HasSubstr("needs the field 'qestion'"));
  EXPECT_EQ(texts(R"({"question": "", "input": null, "id": 3, "source": "s", )" + answers),
            "The answer is| 4.| 5.");
  EXPECT_THAT(error(R"({"question": "q", "chosen": {"role": "assistant", "content": "a"},
                        "rejected": {"role": "assistant", "content": "b"}})"),
              HasSubstr("no 'prompt', but 'question',"));
}

TEST(ReadPreference, WhatTextsHaveNoPlaceForIsRefused) {
  const std::string texts_of_row = R"("prompt": "p", "chosen": "c", "rejected": "d"})";
  EXPECT_THAT(error(R"({"system": "s", )" + texts_of_row), HasSubstr("the row's 'system'"));
  EXPECT_THAT(error(R"({"tools": [{"name": "f"}], )" + texts_of_row), HasSubstr("row's 'tools'"));
  EXPECT_EQ(error(R"({"system": "", "tools": [], )" + texts_of_row), "no error");
  EXPECT_EQ(error(R"({"system": "s", )" + texts_of_row, {{"system", "none"}}), "no error");
  const Json row = Json::parse("{" + texts_of_row);
  DatasetOptions dataset{"file.jsonl", "preference", {}};
  dataset.system = "s";
  EXPECT_THROW(find_format("preference").read(Row(row, dataset), {}), FormatError);
}

TEST(ReadPreference, TakesMessagesWithThePromptApartOrInBoth) {
  const std::string user = R"({"role": "user", "content": "q"})";
  const std::string good = R"({"role": "assistant", "content": "good"})";
  const std::string bad = R"({"role": "assistant", "content": "bad"})";
  const auto row = [](const std::string& prompt, const std::string& chosen,
                      const std::string& rejected) {
    return "{" + prompt + R"("chosen": )" + chosen + R"(, "rejected": )" + rejected + "}";
  };
  EXPECT_EQ(contents(row(R"("prompt": [)" + user + "], ", "[" + good + "]", "[" + bad + "]")),
            "q|good|bad");
  EXPECT_EQ(contents(row(R"("prompt": [)" + user + "], ", good, bad)), "q|good|bad");
  EXPECT_EQ(contents(row("", "[" + user + ", " + good + "]", "[" + user + ", " + bad + "]")),
            "q|good|bad");
  // As UltraFeedback has it: the prompt once more as a text.
  EXPECT_EQ(contents(row(R"("prompt": "q", )", "[" + user + ", " + good + "]",
                         "[" + user + ", " + bad + "]")),
            "q|good|bad");
  EXPECT_EQ(contents(row(R"("prompt": "q", "system": "s", )", good, bad)), "s q|good|bad");
  const std::string more = "[" + user + ", " + good + ", " + user + ", ";
  EXPECT_EQ(contents(row("", more + good + "]", more + bad + "]")), "q good q|good|bad");
  EXPECT_EQ(contents(row("", more + good + "]", "[" + user + ", " + bad + "]")),
            "q|good q good|bad");
}

TEST(ReadPreference, TextsBesideMessagesAreAnswersOfTheAssistant) {
  for (const char* prompt : {"prompt", "messages"}) {
    const std::string row = fmt::format(
        R"({{"{}": [{{"role": "user", "content": "q"}}], "chosen": "c", "rejected": "d"}})",
        prompt);
    EXPECT_EQ(contents(row), "q|c|d") << prompt;
  }
}

TEST(ReadPreference, TakesLlamaFactorysShareGpt) {
  EXPECT_EQ(contents(R"({"conversations": [{"from": "human", "value": "q"},
                         {"from": "gpt", "value": "a"}, {"from": "human", "value": "r"}],
                        "chosen": {"from": "gpt", "value": "good"},
                        "rejected": {"from": "gpt", "value": "bad"}, "system": "s"})"),
            "s q a r|good|bad");
}

TEST(ReadPreference, WhatIsNoPairIsRefusedByItsFields) {
  EXPECT_THAT(error(R"({"prompt": "p", "completion": "c"})"),
              AllOf(HasSubstr("needs the field 'chosen'"), HasSubstr("set format: completion")));
  EXPECT_THAT(error(R"({"prompt": "p", "chosen": "c"})"), HasSubstr("needs the field 'rejected'"));
  EXPECT_THAT(error(R"({"prompt": "p", "chosen": "c", "rejected": ""})"),
              HasSubstr("'rejected' is empty"));
  EXPECT_THAT(error(R"({"prompt": "p", "chosen": "c", "rejected": "c"})"),
              HasSubstr("nothing to prefer"));
  EXPECT_THAT(error(R"({"prompt": "p", "chosen": 4, "rejected": "c"})"),
              HasSubstr("'chosen' must be messages, as the row's others are, found a number"));
  EXPECT_THAT(error(R"({"chosen": [{"role": "user", "content": "q"}],
                        "rejected": [{"role": "user", "content": "r"}]})"),
              HasSubstr("with 'chosen': a conversation must have an assistant turn"));
  EXPECT_THAT(error(R"({"chosen": [{"role": "user", "content": "q"},
                                   {"role": "assistant", "content": "a"}],
                        "rejected": [{"role": "user", "content": "r"},
                                     {"role": "assistant", "content": "b"}]})"),
              HasSubstr("must go on from one prompt"));
  EXPECT_THAT(error(R"({"prompt": [{"role": "user", "content": "q"}],
                        "chosen": [{"role": "bot", "content": "a"}],
                        "rejected": [{"role": "assistant", "content": "b"}]})"),
              HasSubstr("with 'chosen': message 1 has the unknown role 'bot'"));
}

// The supervised texts of a row's two examples.
std::vector<std::string> compared(const std::string& json) {
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  const RowTokenizer rows(tokenizer, &chat_template, {}, tokenizer.vocab_size());
  const TokenizedRow row = rows.tokenize(Json::parse(json), {"a.jsonl", "preference", {}});
  EXPECT_EQ(row.examples.at(0).side, Side::kChosen);
  EXPECT_EQ(row.examples.at(1).side, Side::kRejected);
  std::vector<std::string> answers;
  for (const Example& example : row.examples) {
    answers.push_back(tokenizer.decode(example.tokens, false));
    answers.push_back(test::supervised_text(tokenizer, example.tokens, example.supervised));
  }
  return answers;
}

TEST(TokenizePairs, AllThatStandsBehindThePromptIsCompared) {
  EXPECT_EQ(compared(R"({"prompt": "p:", "chosen": " yes", "rejected": " no"})"),
            (std::vector<std::string>{"p: yes</s>", " yes</s>", "p: no</s>", " no</s>"}));
  EXPECT_EQ(
      compared(R"({"prompt": [{"role": "user", "content": "q"}],
                         "chosen": [{"role": "assistant", "content": "a"}],
                         "rejected": [{"role": "assistant", "content": "b"}]})"),
      (std::vector<std::string>{
          "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n", "a<|im_end|>\n",
          "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n", "b<|im_end|>\n"}));
}

TEST(TokenizePairs, AFileGivesItsPairsAsNeighboursAndNamesTheRowThatIsNone) {
  const test::TempDir dir;
  const ByteTokenizer tokenizer;
  const std::string good = R"({"prompt": "p", "chosen": "c", "rejected": "d"})";
  const DatasetOptions rows{dir.write("rows.jsonl", good + "\n" + good + "\n"), "preference", {}};
  const Dataset dataset = read_dataset(rows, 0, {}, tokenizer, nullptr);
  ASSERT_EQ(dataset.examples.size(), 4u);
  EXPECT_EQ(dataset.report.examples, 2);
  EXPECT_EQ(dataset.report.rendered, 2);
  EXPECT_THAT(to_text(dataset.report), HasSubstr("2 rows, 2 pairs\n"));
  EXPECT_EQ(dataset.examples[3].row, 1);
  const DatasetOptions bad{
      dir.write("bad.jsonl", good + "\n{\"prompt\": \"p\", \"chosen\": \"c\"}"), "preference", {}};
  try {
    read_dataset(bad, 0, {}, tokenizer, nullptr);
    FAIL() << "was read";
  } catch (const FormatError& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("bad.jsonl:2: "), HasSubstr("'rejected'")));
  }
}

// Prompts of four tokens and answers of these lengths.
std::vector<Example> pair_of(int chosen, int rejected) {
  std::vector<Example> pair;
  for (const auto& [side, answer] :
       {std::pair(Side::kChosen, chosen), {Side::kRejected, rejected}}) {
    Example example;
    for (int i = 0; i < 4 + answer; ++i) {
      example.tokens.push_back(i);
      example.supervised.push_back(i >= 4);
    }
    example.side = side;
    pair.push_back(example);
  }
  return pair;
}

TEST(LongPairs, BothAnswersStayOrNeitherDoes) {
  const auto kept = [](OnOverlength policy, int64_t length, DatasetReport& report) {
    std::vector<Example> examples;
    keep_row_within_length(pair_of(3, 9), {policy, length, -1}, report, examples);
    return examples;
  };
  DatasetReport fits, dropped, left, right, lost;
  EXPECT_EQ(kept(OnOverlength::kError, 13, fits).size(), 2u);
  EXPECT_EQ(fits.examples, 1);
  EXPECT_THROW(kept(OnOverlength::kError, 12, fits), FormatError);
  EXPECT_TRUE(kept(OnOverlength::kDrop, 12, dropped).empty());
  EXPECT_EQ(dropped.dropped_overlength, 1);
  const auto cut = kept(OnOverlength::kTruncateRight, 6, right);
  ASSERT_EQ(cut.size(), 2u);
  EXPECT_EQ(cut[0].num_supervised(), 2);
  EXPECT_EQ(cut[1].num_supervised(), 2);
  EXPECT_EQ(cut[1].side, Side::kRejected);
  EXPECT_EQ(right.truncated, 1);
  const auto ends = kept(OnOverlength::kTruncateLeft, 8, left);
  ASSERT_EQ(ends.size(), 2u);
  EXPECT_EQ(ends[0].length(), 7);
  EXPECT_EQ(ends[1].tokens.front(), 5);
  EXPECT_TRUE(kept(OnOverlength::kTruncateRight, 4, lost).empty());
  EXPECT_EQ(lost.dropped_unsupervised, 1);
}

std::vector<Example> many_pairs(int count) {
  std::vector<Example> examples;
  for (int i = 0; i < count; ++i) {
    const auto length = [&](uint64_t k) {
      return 1 + static_cast<int>(uniform_integer(k, static_cast<uint64_t>(i), 26));
    };
    for (Example& example : pair_of(length(1), length(2))) {
      example.row = i;
      examples.push_back(example);
    }
  }
  return examples;
}

TEST(PairLoader, APairIsDealtTogetherOnceAnEpoch) {
  for (const bool packing : {true, false}) {
    Loader loader(many_pairs(41), {.sequence_length = 32,
                                   .packing = packing,
                                   .micro_batch_size = 2,
                                   .gradient_accumulation_steps = 2,
                                   .seed = 5});
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      std::set<int64_t> seen;
      const int64_t steps = loader.steps_in_epoch(epoch);
      EXPECT_TRUE(packing || steps == 11) << steps;  // 41 pairs, four a step
      for (int64_t step = 0; step < steps; ++step) {
        const StepWindow window = loader.next();
        int64_t of_window = 0;
        for (const MicroBatch& batch : window.micro_batches) {
          EXPECT_LE(batch.num_tokens(), 2 * 2 * 32);
          ASSERT_EQ(batch.examples.size(), 2u * static_cast<size_t>(batch.num_pairs));
          of_window += batch.num_pairs;
          for (size_t d = 0; d < batch.examples.size(); d += 2) {
            EXPECT_EQ(batch.examples[d] % 2, 0);
            EXPECT_EQ(batch.examples[d + 1], batch.examples[d] + 1);
            EXPECT_TRUE(seen.insert(batch.examples[d]).second);
          }
        }
        EXPECT_EQ(window.num_pairs, of_window);
      }
      EXPECT_EQ(seen.size(), 41u);
    }
    EXPECT_LE(loader.fill(0), 1.0);
  }
}

TEST(PairLoader, ABrokenOrderOfPairsIsRefused) {
  std::vector<Example> examples = many_pairs(3);
  examples.pop_back();
  EXPECT_THROW(Loader(examples, {}), Error);
  examples = many_pairs(3);
  examples[2].side = Side::kNone;
  EXPECT_THROW(Loader(examples, {}), Error);
}

TEST(DataOptions, PairsAndDemonstrationsAreNotMixedAndPairsNotSplit) {
  const auto refusal = [](const DataOptions& options) {
    try {
      options.validate();
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  DataOptions options;
  options.train = {{"a.jsonl", "preference", {}}};
  EXPECT_TRUE(options.has_pairs());
  EXPECT_EQ(refusal(options), "");
  options.on_overlength = OnOverlength::kSplit;
  EXPECT_THAT(refusal(options), HasSubstr("data.on_overlength: split"));
  options.on_overlength = OnOverlength::kDrop;
  options.eval = {{"b.jsonl", "chat", {}}};
  EXPECT_THAT(refusal(options), HasSubstr("data.eval[0].format is chat"));
}

}  // namespace
}  // namespace qlora::data
