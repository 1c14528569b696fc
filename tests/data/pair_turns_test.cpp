// What the turns of two answers' messages say beside their texts: marks, turns of others than the
// assistant, keys that nothing reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "data/dataset.h"
#include "data/readers/unread_keys.h"
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

// {"role": ..., "content": ...} with further keys.
std::string message(const std::string& role, const std::string& content,
                    const std::string& keys = "") {
  return R"({"role": ")" + role + R"(", "content": ")" + content + "\"" + keys + "}";
}

std::string row_of(const std::string& prompt, const std::string& chosen) {
  return R"({"prompt": [)" + prompt + R"(], "chosen": [)" + chosen + R"(], "rejected": [)" +
         message("assistant", "bad") + "]}";
}

TokenizedRow tokenized(const std::string& json) {
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  const RowTokenizer rows(tokenizer, &chat_template, {}, tokenizer.vocab_size());
  return rows.tokenize(Json::parse(json), {"a.jsonl", "preference", {}});
}

std::string refusal(const std::string& json) {
  try {
    tokenized(json);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

TEST(PairTurns, OneOfAnAnswerThatIsMarkedAsContextOnlyIsRefused) {
  const std::string user = message("user", "q"), more = ", " + message("user", "r") + ", ";
  for (const char* mark : {R"(, "train": false)", R"(, "weight": 0)", R"(, "masked": true)"}) {
    const std::string marked = message("assistant", "Good day", mark);
    EXPECT_THAT(refusal(row_of(user, marked + more + message("assistant", "good"))),
                AllOf(HasSubstr("with 'chosen': message 1 is marked as context only"),
                      HasSubstr("all that stands behind the prompt is compared")))
        << mark;
    EXPECT_THAT(
        refusal(row_of(user, message("assistant", "good") + ", " + message("user", "r", mark) +
                                 ", " + message("assistant", "better"))),
        HasSubstr("with 'chosen': message 2 is marked as context only"))
        << mark;
    // Nothing of the prompt is trained anyhow.
    EXPECT_EQ(refusal(row_of(user + ", " + marked + more.substr(0, more.size() - 2),
                             message("assistant", "good"))),
              "no error")
        << mark;
  }
  EXPECT_THAT(refusal(R"({"prompt": [)" + user + R"(], "chosen": [)" + message("assistant", "a") +
                      R"(], "rejected": [)" + message("assistant", "b", R"(, "weight": 0)") + more +
                      message("assistant", "c") + "]}"),
              HasSubstr("with 'rejected': message 1 is marked as context only"));
  EXPECT_THAT(refusal(row_of(user, R"({"role": "assistant", "content": [{"type": "text",)"
                                   R"( "text": "Good day", "train": false}]})" +
                                       more + message("assistant", "good"))),
              HasSubstr("with 'chosen': message 1 is marked as context only"));
}

TEST(PairTurns, MarksOfThePromptAndTurnsOfOthersInAnAnswerAreNoted) {
  const std::string user = message("user", "q"), good = message("assistant", "good");
  const TokenizedRow plain = tokenized(row_of(user, good));
  EXPECT_FALSE(plain.ignores_marks || plain.compares_others);
  const std::string in = R"(, "train": true)";
  EXPECT_FALSE(tokenized(row_of(user, message("assistant", "good", in))).ignores_marks);
  EXPECT_TRUE(
      tokenized(
          row_of(user + ", " + message("assistant", "a", in) + ", " + message("user", "r"), good))
          .ignores_marks);
  EXPECT_TRUE(tokenized(row_of(user, good + ", " + message("user", "r") + ", " +
                                         message("assistant", "better")))
                  .compares_others);
}

TEST(PairTurns, KeysThatNothingReadsAreNamed) {
  using Keys = std::set<std::string>;
  EXPECT_EQ(tokenized(row_of(message("user", "q", R"(, "mask": 1, "content_id": null)"),
                             message("assistant", "good", R"(, "mood": "m", "weight": 1)")))
                .unread_keys,
            (Keys{"prompt[].mask", "chosen[].mood"}));
  EXPECT_EQ(tokenized(R"({"messages": [{"role": "user", "content": "q", "mask": 1}],)"
                      R"( "chosen": {"role": "assistant", "content": [{"type": "text",)"
                      R"( "text": "a", "mask": 1}]}, "rejected": "b"})")
                .unread_keys,
            (Keys{"messages[].mask", "chosen.content[].mask"}));
  EXPECT_EQ(tokenized(R"({"conversations": [{"from": "human", "value": "q", "mask": 1}],)"
                      R"( "chosen": {"from": "gpt", "value": "a", "mask": 0},)"
                      R"( "rejected": {"from": "gpt", "value": "b"}})")
                .unread_keys,
            (Keys{"conversations[].mask", "chosen.mask"}));
  // A template reads what it writes.
  EXPECT_EQ(unread_keys(Json::parse(row_of(message("user", "q", R"(, "mood": "m")"),
                                           message("assistant", "good"))),
                        {"a.jsonl", "preference", {}}, "{{ m.mood }}"),
            Keys{});
}

TEST(PairTurns, WarningsCountTheRowsWithMarkedPromptsAndTurnsOfOthers) {
  const test::TempDir dir;
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  const std::string user = message("user", "q"), good = message("assistant", "good");
  const std::string turns = good + ", " + message("user", "r") + ", " + good;
  const std::string marked = message("assistant", "a", R"(, "weight": 1)");
  const DatasetOptions rows{
      dir.write("rows.jsonl", row_of(user, good) + "\n" + row_of(user, turns) + "\n" +
                                  row_of(user + ", " + marked + ", " + user, good) + "\n"),
      "preference",
      {}};
  std::string said;
  for (const std::string& warning :
       dataset_warnings(read_dataset(rows, 0, {}, tokenizer, &chat_template).report, tokenizer))
    said += warning + "\n";
  EXPECT_THAT(said, AllOf(HasSubstr("1 rows have answers of several turns"),
                          HasSubstr("1 rows mark turns of their prompt to be trained")));
}

}  // namespace
}  // namespace qlora::data
