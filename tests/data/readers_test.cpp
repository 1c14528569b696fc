#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/readers/reader.h"

namespace qlora::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Record read(const std::string& format, const char* json,
            std::map<std::string, std::string> fields = {}, ReaderOptions options = {}) {
  const Json row = Json::parse(json);
  const DatasetOptions dataset{"file.jsonl", format, std::move(fields)};
  return find_format(format).read(Row(row, dataset), options);
}

std::string messages(const std::string& format, const char* json,
                     std::map<std::string, std::string> fields = {}, ReaderOptions options = {}) {
  return std::get<Conversation>(read(format, json, std::move(fields), options)).messages.dump();
}

std::string error(const std::string& format, const char* json,
                  std::map<std::string, std::string> fields = {}, ReaderOptions options = {}) {
  try {
    read(format, json, std::move(fields), options);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

TEST(ReadAlpaca, JoinsInstructionAndInputIntoTheUserTurn) {
  EXPECT_EQ(messages("alpaca", R"({"instruction": "Add.", "input": "1, 2", "output": "3"})"),
            R"([{"role":"user","content":"Add.\n\n1, 2"},{"role":"assistant","content":"3"}])");
  EXPECT_EQ(messages("alpaca", R"({"instruction": "Hi", "input": "", "output": "Ho"})"),
            R"([{"role":"user","content":"Hi"},{"role":"assistant","content":"Ho"}])");
  EXPECT_EQ(messages("alpaca", R"({"instruction": "Hi", "output": "Ho"})"),
            R"([{"role":"user","content":"Hi"},{"role":"assistant","content":"Ho"}])");
}

TEST(ReadAlpaca, TakesSystemAndHistory) {
  EXPECT_EQ(
      messages("alpaca",
               R"({"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]})"),
      R"([{"role":"system","content":"s"},{"role":"user","content":"a"},)"
      R"({"role":"assistant","content":"b"},{"role":"user","content":"c"},)"
      R"({"role":"assistant","content":"d"}])");
}

TEST(ReadAlpaca, WithTheAlpacaPromptWritesItsSections) {
  const auto record = std::get<PromptCompletion>(
      read("alpaca", R"({"instruction": "I", "input": "N", "output": "O"})", {},
           {.alpaca_prompt = true}));
  EXPECT_THAT(record.prompt,
              testing::EndsWith("\n\n### Instruction:\nI\n\n### Input:\nN\n\n### Response:\n"));
  EXPECT_EQ(record.completion, "O");
  const auto bare = std::get<PromptCompletion>(
      read("alpaca", R"({"instruction": "I", "output": "O", "system": "S"})", {},
           {.alpaca_prompt = true}));
  EXPECT_EQ(bare.prompt, "S\n\n### Instruction:\nI\n\n### Response:\n");
}

TEST(ReadAlpaca, AnEmptyAnswerIsAnError) {
  EXPECT_THAT(error("alpaca", R"({"instruction": "I", "output": " \n"})"),
              HasSubstr("'output' is empty"));
}

TEST(Row, AMissingFieldNamesWhatIsThereAndWhatToWrite) {
  EXPECT_THAT(error("alpaca", R"({"question": "q", "answer": "a"})"),
              AllOf(HasSubstr("needs the field 'instruction'"), HasSubstr("[question, answer]"),
                    HasSubstr("set fields: {instruction: question}")));
  EXPECT_EQ(messages("alpaca", R"({"question": "q", "answer": "a"})",
                     {{"instruction", "question"}, {"output", "answer"}}),
            R"([{"role":"user","content":"q"},{"role":"assistant","content":"a"}])");
}

TEST(Row, AnotherFormatIsRecognised) {
  EXPECT_THAT(error("chat", R"({"instruction": "q", "output": "a"})"),
              HasSubstr("set format: alpaca"));
  EXPECT_THAT(error("alpaca", R"({"messages": [{"role": "user", "content": "a"}]})"),
              HasSubstr("set format: chat"));
  EXPECT_THAT(error("chat", R"({"conversations": [{"from": "human", "value": "a"}]})"),
              HasSubstr("set format: sharegpt"));
  EXPECT_THAT(error("chat", R"({"conversations": [{"role": "user", "content": "a"}]})"),
              HasSubstr("fields: {messages: conversations}"));
  EXPECT_THAT(error("chat", R"({"messages": [{"from": "human", "value": "a"}]})"),
              HasSubstr("set format: sharegpt"));
  EXPECT_THAT(error("sharegpt", R"({"conversations": [{"role": "user", "content": "a"}]})"),
              HasSubstr("set format: chat"));
  EXPECT_THAT(error("alpaca", R"({"prompt": "p", "chosen": "a", "rejected": "b"})"),
              HasSubstr("preference"));
  EXPECT_THAT(error("text", R"({"input_ids": [1]})"), HasSubstr("set format: pretokenized"));
  EXPECT_THAT(error("pretokenized", R"({"prompt": "a", "completion": "b"})"),
              HasSubstr("set format: completion"));
}

TEST(Row, WrongTypesAreNamed) {
  EXPECT_THAT(error("alpaca", R"({"instruction": 1, "output": "a"})"),
              HasSubstr("'instruction' must be a string, found a number"));
  EXPECT_THAT(error("alpaca", R"({"instruction": null, "output": "a"})"),
              HasSubstr("must not be null"));
  EXPECT_THAT(error("chat", R"({"messages": "[1"})"),
              HasSubstr("'messages' must be an array, found a string that is not one in JSON"));
  EXPECT_THAT(error("chat", R"({"messages": {"role": "user"}})"),
              HasSubstr("must be an array, found an object"));
  EXPECT_THAT(error("chat", R"([1])"), HasSubstr("a row must be an object"));
}

TEST(ReadChat, KeepsFurtherKeysForTheTemplate) {
  const auto conversation = std::get<Conversation>(read(
      "chat",
      R"({"messages": [{"role": "user", "content": "q", "name": "Ann"}, {"role": "assistant", "content": "a"}],)"
      R"( "tools": [{"type": "function"}], "chat_template_kwargs": {"enable_thinking": false}})"));
  EXPECT_EQ(conversation.messages[0]["name"], "Ann");
  EXPECT_EQ(conversation.context["tools"].size(), 1u);
  EXPECT_EQ(conversation.context["enable_thinking"], false);
}

TEST(ReadChat, ToolsAreTheRowsOrThoseOfItsTemplateArgumentsAndNullIsNone) {
  const auto context = [](const std::string& more) {
    const std::string row = R"({"messages": [{"role": "user", "content": "q"},)"
                            R"( {"role": "assistant", "content": "a"}], )" +
                            more + "}";
    return std::get<Conversation>(read("chat", row.c_str())).context.dump();
  };
  EXPECT_EQ(context(R"("chat_template_kwargs": {"tools": null, "x": 1})"), R"({"x":1})");
  EXPECT_EQ(context(R"("chat_template_kwargs": {"tools": []})"), "{}");
  EXPECT_EQ(context(R"("chat_template_kwargs": {"tools": "[{\"name\": \"f\"}]"})"),
            R"({"tools":[{"name":"f"}]})");
  EXPECT_EQ(context(R"("tools": null, "chat_template_kwargs": {"tools": [{"name": "f"}]})"),
            R"({"tools":[{"name":"f"}]})");
  EXPECT_EQ(
      context(R"("tools": [{"name": "g"}], "chat_template_kwargs": {"tools": [{"name": "f"}]})"),
      R"({"tools":[{"name":"g"}]})");
}

TEST(ReadChat, JoinsTextPartsAndRefusesOthers) {
  EXPECT_EQ(
      messages("chat",
               R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"},)"
               R"( {"type": "text", "text": "b"}]}, {"role": "assistant", "content": "c"}]})"),
      R"([{"role":"user","content":"ab"},{"role":"assistant","content":"c"}])");
  EXPECT_THAT(error("chat", R"({"messages": [{"role": "user", "content": [{"type": "image"}]},)"
                            R"( {"role": "assistant", "content": "c"}]})"),
              HasSubstr("message 0 has a content part that is not text"));
}

TEST(ReadChat, AContentPartThatIsNoTextIsNamed) {
  const auto with_part = [](const std::string& part) {
    return error("chat",
                 (R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, )" +
                  part + R"(]}, {"role": "assistant", "content": "c"}]})")
                     .c_str());
  };
  EXPECT_THAT(with_part(R"({"type": null, "text": "hi"})"),
              HasSubstr("message 0 has a content part that is not text: part 1 has the type null"));
  EXPECT_THAT(with_part(R"({"type": "image_url"})"),
              HasSubstr("part 1 has the type \"image_url\"; only text is read and trained here, so "
                        "remove the row"));
  EXPECT_THAT(with_part(R"({"type": "input_audio"})"), HasSubstr("remove the row"));
  EXPECT_EQ(with_part(R"({"type": "input_text", "text": "hi"})"), "no error");
  EXPECT_THAT(with_part(R"({"text": "hi"})"), HasSubstr("part 1 has no type"));
  EXPECT_THAT(with_part(R"({"type": "text", "text": null})"), HasSubstr("has null as its text"));
  EXPECT_THAT(with_part("null"), HasSubstr("part 1 is null"));
  EXPECT_THAT(with_part(R"({"type": "text", "text": "hi", "image_url": {"url": "a.png"}})"),
              HasSubstr("part 1 has 'image_url' beside its text; only text is read and trained "
                        "here, so remove the row"));
  for (const char* nothing : {"null", R"("")", "{}", "false", R"({"url": null})"})
    EXPECT_EQ(
        with_part(R"({"type": "text", "text": "hi", "image_url": )" + std::string(nothing) + "}"),
        "no error")
        << nothing;
}

TEST(ReadChat, ArgumentsOfToolCallsBecomeObjects) {
  const auto conversation = std::get<Conversation>(read(
      "chat",
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null,)"
      R"( "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]})"));
  EXPECT_EQ(conversation.messages[1]["tool_calls"][0]["function"]["arguments"]["x"], 1);
}

TEST(ReadChat, ConversationsThatCannotTeachAreErrors) {
  EXPECT_THAT(error("chat", R"({"messages": []})"), HasSubstr("must have messages"));
  EXPECT_THAT(error("chat", R"({"messages": [{"role": "user", "content": "q"}]})"),
              HasSubstr("must have an assistant turn"));
  EXPECT_THAT(
      error(
          "chat",
          R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " "}]})"),
      HasSubstr("message 1 is an assistant turn without text"));
  EXPECT_THAT(error("chat", R"({"messages": [{"role": "assistant", "content": "a"}]})"),
              HasSubstr("must begin with a user turn"));
  EXPECT_THAT(
      error(
          "chat",
          R"({"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]})"),
      HasSubstr("must begin with a user turn"));
  EXPECT_THAT(
      error("chat",
            R"({"messages": [{"role": "user", "content": "q"}, {"role": "user", "content": "r"},)"
            R"( {"role": "assistant", "content": "a"}]})"),
      HasSubstr("messages 0 and 1 both have the role 'user'"));
  EXPECT_THAT(error("chat", R"({"messages": [{"role": "human", "content": "q"}]})"),
              HasSubstr("unknown role 'human'"));
  EXPECT_THAT(error("chat", R"({"messages": [{"role": "user", "content": 3}]})"),
              HasSubstr("content of message 0"));
  EXPECT_THAT(error("chat", R"({"messages": [7]})"), HasSubstr("message 0 must be an object"));
  EXPECT_THAT(
      error(
          "chat",
          R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 2}]})"),
      HasSubstr("weight of message 1"));
}

TEST(ReadSharegpt, MapsRolesAndToolTurns) {
  const char* row =
      R"({"system": "s", "conversations": [{"from": "human", "value": "q"},)"
      R"( {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},)"
      R"( {"from": "observation", "value": "2"}, {"from": "gpt", "value": "a"}], "tools": "[{\"name\": \"f\"}]"})";
  EXPECT_EQ(
      messages("sharegpt", row),
      R"([{"role":"system","content":"s"},{"role":"user","content":"q"},)"
      R"({"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]},)"
      R"({"role":"tool","content":"2"},{"role":"assistant","content":"a"}])");
  EXPECT_EQ(std::get<Conversation>(read("sharegpt", row)).context["tools"][0]["name"], "f");
  // A template without tool_calls gets the call as the text that the file has.
  EXPECT_THAT(
      messages("sharegpt", row, {}, {.writes_tool_calls_beside_tools = false}),
      HasSubstr(
          R"({"role":"assistant","content":"{\"name\": \"f\", \"arguments\": {\"x\": 1}}"})"));
  EXPECT_EQ(messages("sharegpt", row, {}, {.template_writes_tool_calls = false}),
            messages("sharegpt", row));
}

TEST(ReadSharegpt, BadTurnsAreErrors) {
  EXPECT_THAT(error("sharegpt", R"({"conversations": [{"from": "alien", "value": "q"}]})"),
              HasSubstr("from 'alien'"));
  EXPECT_THAT(error("sharegpt", R"({"conversations": [{"from": "human"}]})"),
              HasSubstr("'from' and 'value'"));
  EXPECT_THAT(error("sharegpt", R"({"conversations": [{"from": "human", "value": "q"},)"
                                R"( {"from": "function_call", "value": "f"}]})"),
              HasSubstr("must be JSON"));
  EXPECT_THAT(error("sharegpt", R"({"conversations": [], "tools": "no"})"),
              HasSubstr("tools must be an array"));
}

TEST(ReadCompletion, KeepsBothTextsAsTheyAre) {
  const auto record =
      std::get<PromptCompletion>(read("completion", R"({"prompt": "p ", "completion": " c\n"})"));
  EXPECT_EQ(record.prompt, "p ");
  EXPECT_EQ(record.completion, " c\n");
  EXPECT_THAT(error("completion", R"({"prompt": "p", "completion": ""})"),
              HasSubstr("'completion' is empty"));
}

TEST(ReadPretokenized, LabelsMaskOrNeither) {
  const auto labelled = std::get<TokenRow>(
      read("pretokenized", R"({"input_ids": [5, 6, 7], "labels": [-100, 6, 7]})"));
  EXPECT_EQ(labelled.supervised, (std::vector<uint8_t>{0, 1, 1}));
  const auto masked =
      std::get<TokenRow>(read("pretokenized", R"({"input_ids": [5, 6], "mask": [0, 1]})"));
  EXPECT_EQ(masked.supervised, (std::vector<uint8_t>{0, 1}));
  const auto bare = std::get<TokenRow>(read("pretokenized", R"({"input_ids": [5, 6]})"));
  EXPECT_EQ(bare.supervised, (std::vector<uint8_t>{1, 1}));
}

TEST(ReadPretokenized, PaddingToldByTheAttentionMaskIsCutOff) {
  const auto row = std::get<TokenRow>(read(
      "pretokenized",
      R"({"input_ids": [0, 5, 6, 0], "labels": [-100, 5, 6, -100], "attention_mask": [0, 1, 1, 0]})"));
  EXPECT_EQ(row.tokens, (std::vector<TokenId>{5, 6}));
  EXPECT_EQ(row.supervised, (std::vector<uint8_t>{1, 1}));
}

TEST(ReadPretokenized, BadNumbersAreErrors) {
  EXPECT_THAT(error("pretokenized", R"({"input_ids": []})"), HasSubstr("is empty"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [-1]})"), HasSubstr("at least 0"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [4294967296]})"), HasSubstr("fit in 32 bits"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [18446744073709551615]})"),
              HasSubstr("fit in 32 bits"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [1.5]})"), HasSubstr("must be an integer"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [5, 6], "labels": [5]})"),
              HasSubstr("as long as"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [5, 6], "labels": []})"),
              HasSubstr("as long as"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [5, 6], "labels": [6, 6]})"),
              HasSubstr("-100 or input_ids[0] = 5"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [5, 6], "mask": [0, 2]})"),
              HasSubstr("0 or 1"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [5], "mask": [1], "labels": [5]})"),
              HasSubstr("found both"));
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [5, 6, 7], "attention_mask": [1, 0, 1]})"),
              HasSubstr("padding"));
}

TEST(ReadPretokenized, MasksOfOtherToolsCount) {
  for (const char* name : {"mask", "loss_mask", "completion_mask", "assistant_masks"}) {
    const std::string json = std::string(R"({"input_ids": [5, 6], ")") + name + "\": [0, 1]}";
    EXPECT_EQ(std::get<TokenRow>(read("pretokenized", json.c_str())).supervised,
              (std::vector<uint8_t>{0, 1}));
  }
  EXPECT_THAT(error("pretokenized", R"({"input_ids": [5], "mask": [1], "loss_mask": [1]})"),
              HasSubstr("'mask' or 'loss_mask', found both"));
}

TEST(ReadCompletion, TheSeparatorBelongsToThePrompt) {
  const Json row = Json::parse(R"({"prompt": "p", "completion": "c"})");
  const DatasetOptions dataset{"a.jsonl", "completion", {}, "\n"};
  const auto pair =
      std::get<PromptCompletion>(find_format("completion").read(Row(row, dataset), {}));
  EXPECT_EQ(pair.prompt, "p\n");
  EXPECT_EQ(pair.completion, "c");
}

TEST(Row, ARowThatHoldsTheRowsIsRecognised) {
  EXPECT_THAT(error("text", R"({"version": 1, "data": [{"text": "a"}, {"text": "b"}]})"),
              HasSubstr("the rows may be in its member 'data', a list of 2 objects"));
}

TEST(Formats, NamesOfOtherToolsGetAHint) {
  const auto refusal = [](const char* name) {
    try {
      find_format(name);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(refusal("messages"), HasSubstr("that is chat here"));
  EXPECT_THAT(refusal("chat_template"), HasSubstr("that is chat here"));
  EXPECT_THAT(refusal("ChatML"), HasSubstr("that is chat here"));
  EXPECT_THAT(refusal("llama3"), HasSubstr("chat template: set format: chat"));
  EXPECT_THAT(refusal("Llama-3.1"), HasSubstr("chat template: set format: chat"));
  EXPECT_THAT(refusal("conversations"), HasSubstr("that is sharegpt here"));
  EXPECT_THAT(refusal("pretrain"), HasSubstr("that is text here"));
  EXPECT_THAT(refusal("Chat"), HasSubstr("that is written chat here"));
  EXPECT_THAT(refusal("ALPACA"), HasSubstr("that is written alpaca here"));
  EXPECT_THAT(refusal("input-output"), HasSubstr("that is written input_output here"));
  EXPECT_THAT(refusal("dpo"), HasSubstr("that is preference here"));
  EXPECT_THAT(refusal("kto"), HasSubstr("by DPO and ORPO"));
  EXPECT_THAT(refusal("parquet"), HasSubstr("not what kind of file"));
}

TEST(Formats, AnUnknownOneListsTheKnown) {
  try {
    find_format("jsonl");
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("alpaca, chat, sharegpt, completion, text, pretokenized"));
  }
}

}  // namespace
}  // namespace qlora::data
