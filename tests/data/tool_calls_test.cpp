// Every way in which rows write calls of tools, their results and their descriptions, as the one
// that templates know.
#include "data/readers/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "data/readers/reader.h"
#include "data/tokenize_row.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Conversation read(const std::string& format, const std::string& json, ReaderOptions options = {}) {
  const Json row = Json::parse(json);
  const DatasetOptions dataset{"file.jsonl", format, {}};
  return std::get<Conversation>(find_format(format).read(Row(row, dataset), options));
}

std::string error(const std::string& format, const std::string& json) {
  try {
    read(format, json);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

// A chat row in which the assistant answers with these members, and a tool with those.
std::string row_with(const std::string& call, const std::string& result = R"("role": "tool")") {
  return R"({"messages": [{"role": "user", "content": "q"}, {)" + call + "}, {" + result +
         R"(, "content": "2"}, {"role": "assistant", "content": "a"}]})";
}

std::string call_of(const std::string& members) {
  return read("chat", row_with(R"("role": "assistant", "content": null, )" + members))
      .messages[1]
      .dump();
}

constexpr const char* kCall =
    R"({"role":"assistant","content":"","tool_calls":[{"type":"function",)"
    R"("function":{"name":"f","arguments":{"x":1}}}]})";

TEST(ToolCalls, EveryWayToWriteOneIsTheSameCall) {
  for (
      const char* members :
      {R"("tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}])",
       R"("tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}])",
       R"("tool_calls": "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"x\": 1}}}]")",
       R"("tool_calls": ["{\"name\": \"f\", \"arguments\": {\"x\": 1}}"])",
       R"("tool_calls": [{"name": "f", "arguments": {"x": 1}}])",
       R"("tool_calls": null, "function_call": {"name": "f", "arguments": "{\"x\": 1}"})",
       R"("function_call": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}")"})
    EXPECT_EQ(call_of(members), kCall) << members;
}

TEST(ToolCalls, AnIdStaysAndArgumentsThatAreMissingAreNone) {
  EXPECT_EQ(call_of(R"("tool_calls": [{"id": "c1", "name": "f", "arguments": ""}])"),
            R"({"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function",)"
            R"("function":{"name":"f","arguments":{}}}]})");
  EXPECT_EQ(call_of(R"("tool_calls": [{"function": {"name": "f"}}])"),
            R"({"role":"assistant","content":"","tool_calls":[)"
            R"({"function":{"name":"f","arguments":{}}}]})");
  // What is no object stays as the model wrote it.
  EXPECT_THAT(call_of(R"("tool_calls": [{"function": {"name": "f", "arguments": "x = 1"}}])"),
              HasSubstr(R"("arguments":"x = 1")"));
}

TEST(ToolCalls, TurnsThatAreACallAndTheirAnswers) {
  const Conversation swift =
      read("chat", row_with(R"("role": "tool_call", "content": "{\"name\": \"f\", \"arguments\": )"
                            R"({\"x\": 1}}")",
                            R"("role": "tool_response")"));
  EXPECT_EQ(swift.messages[1].dump(), kCall);
  EXPECT_EQ(swift.messages[2]["role"], "tool");
  const Conversation openai = read(
      "chat", row_with(R"("role": "assistant", "function_call": {"name": "f", "arguments": "{}"})",
                       R"("role": "function", "name": "f")"));
  EXPECT_EQ(openai.messages[2].dump(), R"({"role":"tool","name":"f","content":"2"})");
}

TEST(ToolCalls, MayFollowOnWhatTheAssistantSaidAndOnEachOther) {
  const std::string say = R"("role": "assistant", "content": "Let me look.")";
  const std::string call = R"("role": "assistant", "tool_calls": [{"name": "f"}])";
  EXPECT_EQ(read("chat", row_with(say, call)).messages.size(), 4u);
  EXPECT_EQ(read("chat", row_with(call, call)).messages.size(), 4u);
  EXPECT_THAT(error("chat", row_with(say, R"("role": "assistant")")),
              HasSubstr("messages 1 and 2 both have the role 'assistant'"));
}

TEST(ToolCalls, OfShareGptAreReadWhateverTheAnswerIsCalled) {
  for (const char* answer :
       {"observation", "function_response", "tool", "function", "tool_response"})
    for (const char* call : {R"("{\"name\": \"f\", \"arguments\": {\"x\": 1}}")",
                             R"("[{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}]")",
                             R"({"name": "f", "arguments": {"x": 1}})"}) {
      const Conversation conversation =
          read("sharegpt", R"({"conversations": [{"from": "human", "value": "q"}, {"from": )"
                           R"("function_call", "value": )" +
                               std::string(call) + R"(}, {"from": ")" + answer +
                               R"(", "value": "2", "name": "f"}, {"from": "gpt", "value": "a"}]})");
      EXPECT_EQ(conversation.messages[1].dump(), kCall) << call;
      EXPECT_EQ(conversation.messages[2].dump(), R"({"role":"tool","content":"2","name":"f"})")
          << answer;
    }
}

TEST(ToolCalls, ThoseThatNameNoFunctionAreErrorsWithTheirMessage) {
  const auto refused = [](const std::string& members) {
    return error("chat", row_with(R"("role": "assistant", "content": "", )" + members));
  };
  EXPECT_THAT(refused(R"("tool_calls": [{"function": {"arguments": {}}}])"),
              AllOf(HasSubstr("a tool call of message 1 must name its function"),
                    HasSubstr(R"(found {"function":{"arguments":{}}})")));
  EXPECT_THAT(refused(R"("tool_calls": {"name": "f"})"),
              HasSubstr("tool_calls of message 1 must be an array, found an object"));
  EXPECT_THAT(refused(R"("tool_calls": ["f 1"])"),
              HasSubstr("a tool call of message 1 must be an object, found a string"));
  EXPECT_THAT(refused(R"("tool_calls": [{"name": "f"}], "function_call": {"name": "f"})"),
              HasSubstr("message 1 has both function_call and tool_calls"));
  EXPECT_THAT(error("chat", row_with(R"("role": "tool_call", "content": "f 1")")),
              HasSubstr("message 1 is a call of a function, so its text must be JSON"));
}

TEST(Tools, AreAListHoweverTheyAreWritten) {
  const Json expected = Json::parse(R"([{"type": "function", "function": {"name": "f"}}])");
  for (const char* tools : {R"([{"type": "function", "function": {"name": "f"}}])",
                            R"({"type": "function", "function": {"name": "f"}})",
                            R"("[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]")",
                            R"(["{\"type\": \"function\", \"function\": {\"name\": \"f\"}}"])"})
    EXPECT_EQ(parse_tools(Json::parse(tools)), expected) << tools;
  for (const char* none : {"null", "[]", R"("")", R"("[]")"})
    EXPECT_TRUE(parse_tools(Json::parse(none)).is_null()) << none;
  for (const auto& [bad, reason] : {std::pair{"3", "found a number"},
                                    {R"("f")", "a string that is not JSON"},
                                    {R"({"f": 1})", "found an object"},
                                    {R"(["f"])", "tool 0 of tools must be an object"}})
    try {
      parse_tools(Json::parse(bad));
      ADD_FAILURE() << bad;
    } catch (const FormatError& e) {
      EXPECT_THAT(e.what(), HasSubstr(reason));
    }
}

// Reads one row through a template, and what is said of it.
std::string said_of(const std::string& row, const std::string& template_text) {
  const test::TempDir dir;
  const test::ByteTokenizer tokenizer;
  const ChatTemplate chat_template(template_text);
  try {
    const Dataset dataset =
        read_dataset({dir.write("a.jsonl", row), "chat", {}}, 0, {}, tokenizer, &chat_template);
    std::string said;
    for (const std::string& warning : dataset_warnings(dataset.report, tokenizer)) said += warning;
    return said;
  } catch (const FormatError& e) {
    return e.what();
  }
}

TEST(ToolCalls, WhatTheTemplateLosesIsTold) {
  const std::string end =
      "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>"
      "assistant\n{% endif %}";
  const std::string plain =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + end;
  const std::string without_results =
      "{% for m in messages if m.role != 'tool' %}<|im_start|>{{ m.role }}\n{{ m.content }}"
      "{{ m.tool_calls | tojson if m.tool_calls }}" +
      end;
  const std::string call = R"("role": "assistant", "content": "So:")";
  EXPECT_EQ(said_of(row_with(call), plain), "");
  EXPECT_THAT(said_of(row_with(call), without_results),
              HasSubstr("1 rows have tools or results of tools, but the chat template does not "
                        "write them"));
  // An answer that is more than its call loses the call all the same.
  EXPECT_THAT(said_of(row_with(call + R"(, "tool_calls": [{"name": "f"}])"), plain),
              AllOf(HasSubstr("a.jsonl:1: "), HasSubstr("tool_calls of message 1 (assistant)")));
}

// A model whose template does not know tools, and that names another one for them.
struct WithToolUse {
  test::ByteTokenizer tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  std::unique_ptr<RowTokenizer> rows;

  explicit WithToolUse(const std::string& choice = "") {
    tokenizer.template_text =
        "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}";
    tokenizer.tool_use_text =
        "{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}"
        "<s>{{ m.role }}:{% for c in m.tool_calls %}({{ c.function.name }}){% endfor %}"
        "{{ m.content }}{{ m.mood }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant:{% endif %}";
    chat_template = choose_chat_template(choice, tokenizer);
    rows = std::make_unique<RowTokenizer>(tokenizer, chat_template.get(), DataOptions());
  }
  TokenizedRow row(const std::string& format, const std::string& json) const {
    return rows->tokenize(Json::parse(json), {"file.jsonl", format, {}});
  }
  std::string text(const TokenizedRow& row) const {
    return tokenizer.decode(row.examples.back().tokens, false);
  }
  std::string trained(const TokenizedRow& row) const {
    const Example& example = row.examples.back();
    return test::supervised_text(tokenizer, example.tokens, example.supervised);
  }
};

constexpr const char* kTurns = R"("messages": [{"role": "user", "content": "q", "mood": "!"},)"
                               R"( {"role": "assistant", "content": "a"}])";
constexpr const char* kTools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";

TEST(ToolUseTemplate, RendersRowsWithToolsAndNoOthers) {
  const WithToolUse model;
  const TokenizedRow plain = model.row("chat", std::string("{") + kTurns + "}");
  EXPECT_EQ(model.text(plain), "<|im_start|>user:q<|im_end|><|im_start|>assistant:a<|im_end|>");
  EXPECT_EQ(model.trained(plain), "a<|im_end|>");
  EXPECT_EQ(plain.unread_keys.size(), 1u);
  const TokenizedRow with = model.row("chat", std::string("{") + kTools + ", " + kTurns + "}");
  EXPECT_EQ(model.text(with), "[f]<s>user:q!</s><s>assistant:a</s>");
  EXPECT_EQ(model.trained(with), "a</s>");
  EXPECT_TRUE(with.unread_keys.empty());
  EXPECT_FALSE(with.loses_tools);
  const std::string pair = std::string("{") + kTools +
                           R"(, "prompt": [{"role": "user", "content": "q"}],)"
                           R"( "chosen": [{"role": "assistant", "content": "a"}],)"
                           R"( "rejected": [{"role": "assistant", "content": "b"}]})";
  EXPECT_EQ(model.text(model.row("preference", pair)), "[f]<s>user:q</s><s>assistant:b</s>");
}

TEST(ToolUseTemplate, IsTheOneThatCallsAndResultsAreAskedOf) {
  const WithToolUse model;
  const std::string calls =
      R"("conversations": [{"from": "human", "value": "q"},)"
      R"( {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"},)"
      R"( {"from": "observation", "value": "2"}, {"from": "gpt", "value": "a"}]})";
  EXPECT_THAT(model.text(model.row("sharegpt", "{" + calls)), HasSubstr("assistant:{\"name\""));
  const TokenizedRow with = model.row("sharegpt", std::string("{") + kTools + ", " + calls);
  EXPECT_EQ(model.text(with),
            "[f]<s>user:q</s><s>assistant:(f)</s><s>tool:2</s><s>assistant:a</s>");
  EXPECT_EQ(model.trained(with), "(f)</s>|a</s>");
  EXPECT_FALSE(with.loses_tools);
  const std::string messages = row_with(R"("role": "assistant", "tool_calls": [{"name": "f"}])");
  EXPECT_THROW(model.row("chat", messages), FormatError);
  EXPECT_NO_THROW(model.row("chat", std::string("{") + kTools + ", " + messages.substr(1)));
}

TEST(ToolUseTemplate, AChosenTemplateStandsForBoth) {
  const WithToolUse model(
      "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
      "{% if add_generation_prompt %}<s>{% endif %}");
  EXPECT_EQ(model.text(model.row("chat", std::string("{") + kTools + ", " + kTurns + "}")),
            "<s>q</s><s>a</s>");
}

TEST(ToolUseTemplate, ItsEndOfTurnEndsAnswersToo) {
  const WithToolUse model;
  EXPECT_EQ(ends_of_turn(model.tokenizer, *model.chat_template),
            (std::vector<TokenId>{test::ByteTokenizer::kEnd, test::ByteTokenizer::kEos}));
  const Json question = Json::array({{{"role", "user"}, {"content", "q"}}});
  const auto prompt = [&](const Json& context) {
    return model.tokenizer.decode(
        conversation_prompt(question, *model.chat_template, model.tokenizer, context), false);
  };
  EXPECT_EQ(prompt(Json::object()), "<|im_start|>user:q<|im_end|><|im_start|>assistant:");
  EXPECT_EQ(prompt(Json::parse(std::string("{") + kTools + "}")), "[f]<s>user:q</s><s>assistant:");
}

}  // namespace
}  // namespace qlora::data
