// What a row of a conversation brings beside its turns: system messages, thoughts, keys without a
// value, pictures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/dataset.h"
#include "data/readers/reader.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kTurns =
    R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])";

DatasetOptions rows_of(const std::string& format, const std::string& system = "",
                       std::map<std::string, std::string> fields = {}) {
  DatasetOptions dataset{"file.jsonl", format, std::move(fields)};
  dataset.system = system;
  return dataset;
}

Record read(const DatasetOptions& dataset, const std::string& json) {
  const Json row = Json::parse(json);
  return find_format(dataset.format).read(Row(row, dataset), {});
}

// The roles and contents: "system: s, user: q, ...", or what is wrong.
std::string turns(const DatasetOptions& dataset, const std::string& json) {
  try {
    const Record record = read(dataset, json);
    std::string text;
    for (const Json& message : std::get<Conversation>(record).messages)
      text += (text.empty() ? "" : ", ") + message["role"].get<std::string>() + ": " +
              message["content"].get<std::string>();
    return text;
  } catch (const FormatError& e) {
    return e.what();
  }
}

std::string with_system(const std::string& value) {
  return R"({"system": )" + value + R"(, "messages": )" + kTurns + "}";
}

TEST(SystemMessage, OfAColumnStandsInFrontOfTheMessages) {
  EXPECT_EQ(turns(rows_of("chat"), with_system(R"("s")")), "system: s, user: q, assistant: a");
  EXPECT_EQ(turns(rows_of("chat"), with_system(R"("")")), "user: q, assistant: a");
  EXPECT_EQ(turns(rows_of("chat"), with_system("null")), "user: q, assistant: a");
  EXPECT_EQ(turns(rows_of("chat", "", {{"system", "instructions"}}),
                  std::string(R"({"instructions": "s", "messages": )") + kTurns + "}"),
            "system: s, user: q, assistant: a");
  EXPECT_THAT(turns(rows_of("chat"), with_system("[1]")),
              HasSubstr("the field 'system' must be a string, found an array"));
}

TEST(SystemMessage, OfTheRecipeIsForRowsThatBringNone) {
  EXPECT_EQ(turns(rows_of("chat", "d"), with_system(R"("s")")), "system: s, user: q, assistant: a");
  EXPECT_EQ(turns(rows_of("chat", "d"), with_system(R"("")")), "system: d, user: q, assistant: a");
  EXPECT_EQ(turns(rows_of("alpaca", "d"), R"({"instruction": "i", "output": "o"})"),
            "system: d, user: i, assistant: o");
  EXPECT_EQ(turns(rows_of("sharegpt", "d"), R"({"conversations": [{"from": "human", "value": "q"},)"
                                            R"( {"from": "gpt", "value": "a"}]})"),
            "system: d, user: q, assistant: a");
  for (const char* role : {"system", "developer"})
    EXPECT_EQ(
        turns(rows_of("chat", "d"), std::string(R"({"messages": [{"role": ")") + role +
                                        R"(", "content": "o"}, {"role": "user", "content": "q"},)"
                                        R"( {"role": "assistant", "content": "a"}]})"),
        std::string(role) + ": o, user: q, assistant: a");
  const auto pair = std::get<ConversationPair>(
      read(rows_of("preference", "d"), R"({"prompt": [{"role": "user", "content": "q"}],)"
                                       R"( "chosen": [{"role": "assistant", "content": "a"}],)"
                                       R"( "rejected": [{"role": "assistant", "content": "b"}]})"));
  EXPECT_EQ(pair.rejected.messages[0]["content"], "d");
  EXPECT_EQ(pair.prompt_messages, 2u);
}

TEST(SystemMessage, TwoOfOneRowMustBeTheSame) {
  const auto row = [](const char* column) {
    return std::string(R"({"system": ")") + column +
           R"(", "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},)"
           R"( {"from": "gpt", "value": "a"}]})";
  };
  EXPECT_EQ(turns(rows_of("sharegpt"), row("s")), "system: s, user: q, assistant: a");
  EXPECT_THAT(turns(rows_of("sharegpt"), row("t")),
              AllOf(HasSubstr(R"(the row's 'system' is "t")"),
                    HasSubstr(R"(begin with the system message "s")"),
                    HasSubstr("set fields: {system: none}")));
  EXPECT_EQ(turns(rows_of("sharegpt", "", {{"system", "none"}}), row("t")),
            "system: s, user: q, assistant: a");
}

TEST(SystemMessage, OfADatasetWithoutConversationsIsRefused) {
  DataOptions options;
  options.train = {rows_of("text", "d")};
  try {
    options.validate();
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("data.train[0].system is a message of conversations"));
  }
}

TEST(SystemMessage, InFrontOfTheRowsListDoesNotMoveTheNumbersThatErrorsName) {
  const test::TempDir dir;
  const test::ByteTokenizer tokenizer;
  const ChatTemplate chat_template(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}");
  const auto path = dir.write("a.jsonl", with_system(R"("s")"));
  try {
    read_dataset({path, "chat", {}}, 0, {}, tokenizer, &chat_template);
    FAIL();
  } catch (const FormatError& e) {
    EXPECT_THAT(e.what(), HasSubstr("the chat template writes message 1 (assistant)"));
  }
}

TEST(ChatRows, MessagesMayBeJsonInAString) {
  EXPECT_EQ(turns(rows_of("chat"), R"({"messages": "[{\"role\": \"user\", \"content\": \"q\"},)"
                                   R"( {\"role\": \"assistant\", \"content\": \"a\"}]"})"),
            "user: q, assistant: a");
}

TEST(ChatRows, KeysWithoutAValueDoNotReachTheTemplate) {
  const auto conversation = std::get<Conversation>(
      read(rows_of("chat"), R"({"messages": [{"role": "user", "content": "q", "thinking": null},)"
                            R"( {"role": "assistant", "content": "a", "tool_calls": null,)"
                            R"( "thinking": "t", "weight": null}]})"));
  EXPECT_EQ(conversation.messages.dump(),
            R"([{"role":"user","content":"q"},{"role":"assistant","content":"a","thinking":"t"}])");
}

TEST(ChatRows, AnAnswerMayBeAThoughtAlone) {
  const auto with = [](const char* members) {
    return turns(rows_of("chat"),
                 R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", )" +
                     std::string(members) + "}]}");
  };
  EXPECT_EQ(with(R"("content": null, "reasoning_content": "r")"), "user: q, assistant: ");
  EXPECT_EQ(with(R"("content": "", "thinking": "r")"), "user: q, assistant: ");
  EXPECT_THAT(with(R"("content": "", "thinking": " ")"), HasSubstr("without text"));
  EXPECT_THAT(with(R"("content": null)"), HasSubstr("message 1 must have content"));
}

TEST(ChatRows, OfShareGptKeepFurtherKeysForTheTemplate) {
  const auto conversation = std::get<Conversation>(
      read(rows_of("sharegpt"),
           R"({"conversations": [{"from": "human", "value": [{"type": "text", "text": "q"}]},)"
           R"( {"from": "gpt", "value": "a", "reasoning_content": "r", "role": "x"}],)"
           R"( "chat_template_kwargs": {"enable_thinking": true}})"));
  EXPECT_EQ(conversation.messages.dump(),
            R"([{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"a","reasoning_content":"r"}])");
  EXPECT_EQ(conversation.context["enable_thinking"], true);
}

TEST(ChatRows, AboutPicturesFilmsAndSoundsAreRefusedByTheirField) {
  const auto with = [](const std::string& field, const char* value) {
    return turns(rows_of("chat"),
                 "{\"" + field + "\": " + value + ", \"messages\": " + kTurns + "}");
  };
  for (const char* field : {"image", "images", "video", "videos", "audio", "audios"}) {
    EXPECT_THAT(with(field, R"("a.png")"),
                AllOf(HasSubstr("the row's field '" + std::string(field) + "' is not empty"),
                      HasSubstr("remove the row")));
    EXPECT_THAT(with(field, R"([{"path": "a.png", "bytes": null}])"), HasSubstr("is not empty"));
    for (const char* nothing : {"null", R"("")", "[]", "{}", "[null]", R"([{"bytes": null}])"})
      EXPECT_EQ(with(field, nothing), "user: q, assistant: a") << field << nothing;
  }
  const auto within = [](const std::string& format, const std::string& value) {
    const bool chat = format == "chat";
    return turns(rows_of(format),
                 (chat ? R"({"messages": [{"role": "user", "content": "q", "images": )"
                       : R"({"conversations": [{"from": "human", "value": "q", "images": )") +
                     value +
                     (chat ? R"(}, {"role": "assistant", "content": "a"}]})"
                           : R"(}, {"from": "gpt", "value": "a"}]})"));
  };
  for (const char* format : {"chat", "sharegpt"}) {
    EXPECT_THAT(within(format, R"(["a.png"])"),
                AllOf(HasSubstr("'images' of message 0 is not empty"), HasSubstr("remove the row")))
        << format;
    EXPECT_EQ(within(format, "[]"), "user: q, assistant: a") << format;
  }
  const char* alpaca = R"({"instruction": "i", "image": "red", "output": "o"})";
  EXPECT_THAT(turns(rows_of("alpaca"), alpaca), HasSubstr("field 'image'"));
  EXPECT_EQ(turns(rows_of("alpaca", "", {{"input", "image"}}), alpaca),
            "user: i\n\nred, assistant: o");
  EXPECT_NO_THROW(
      read(rows_of("completion"), R"({"prompt": "p", "completion": "c", "image": "a.png"})"));
}

}  // namespace
}  // namespace qlora::data
