// Rows of ShareGPT: {"conversations": [{"from": "human", "value": "..."}, ...]}, with "system",
// "tools" and "loss_mask" (whether each turn is trained) beside them. function_call turns become
// assistant turns with tool_calls, observations become tool turns.
#include <map>

#include "base/error.h"
#include "data/exact_json.h"
#include "data/readers/conversation.h"
#include "data/readers/reader.h"
#include "data/readers/turn_marks.h"

namespace qlora::data {
namespace {

const std::map<std::string, std::string>& roles() {
  static const std::map<std::string, std::string> map = {
      {"human", "user"},
      {"user", "user"},
      {"gpt", "assistant"},
      {"assistant", "assistant"},
      {"chatgpt", "assistant"},
      {"bing", "assistant"},
      {"bard", "assistant"},
      {"model", "assistant"},
      {"bot", "assistant"},
      {"system", "system"},
      {"observation", "tool"},
      {"tool", "tool"},
      {"function_response", "tool"},
      {"function_call", "function_call"},
      {"tool_call", "function_call"},
  };
  return map;
}

// {"name", "arguments"} or an array of them, as the calls of one turn.
Json tool_calls(const std::string& value, size_t index) {
  const Json parsed = exact_json_or_discarded(value);
  const Json calls = parsed.is_array() ? parsed : Json::array({parsed});
  Json result = Json::array();
  for (const Json& call : calls) {
    if (!call.is_object() || !call.contains("name")) {
      fail<FormatError>(
          "message {} is a function_call, so its value must be JSON like {{\"name\": ..., "
          "\"arguments\": {{...}}}}",
          index);
    }
    result.push_back(Json{{"type", "function"}, {"function", call}});
  }
  return result;
}

}  // namespace

Json sharegpt_message(const Json& turn, size_t index, const Row& row,
                      const ReaderOptions& options) {
  const std::string from_field = row.file_field("from"), value_field = row.file_field("value");
  if (!turn.is_object() || !turn.contains(from_field) || !turn.contains(value_field)) {
    const bool chat = turn.is_object() && turn.contains("role") && turn.contains("content");
    fail<FormatError>(
        "message {} must be an object with '{}' and '{}'{}", index, from_field, value_field,
        chat ? "; it has role and content: this looks like chat, set format: chat and "
               "fields: {messages: " +
                   row.file_field("conversations") + "}"
             : "");
  }
  const Json& from = turn[from_field];
  const Json& value = turn[value_field];
  if (!from.is_string() || !value.is_string()) {
    fail<FormatError>("'{}' and '{}' of message {} must be strings, found {} and {}", from_field,
                      value_field, index, describe_type(from), describe_type(value));
  }
  const auto role = roles().find(from.get<std::string>());
  if (role == roles().end()) {
    fail<FormatError>(
        "message {} is from '{}'; known are human, gpt, system, function_call and observation "
        "(and user, assistant, model, bot, tool, tool_call)",
        index, from.get<std::string>());
  }
  Json message;
  if (role->second == "function_call") {
    message["role"] = "assistant";
    message["content"] = options.template_writes_tool_calls ? Json("") : value;
    if (options.template_writes_tool_calls) {
      message["tool_calls"] = tool_calls(value.get<std::string>(), index);
    }
  } else {
    message["role"] = role->second;
    message["content"] = value;
  }
  for (const std::string& mark : turn_mark_keys())
    if (turn.contains(mark)) message[mark] = turn[mark];
  return message;
}

Record read_sharegpt(const Row& row, const ReaderOptions& options) {
  Conversation conversation;
  const auto system = row.optional_text("system");
  if (system && !system->empty()) {
    conversation.messages.push_back(Json{{"role", "system"}, {"content", *system}});
  }
  Json turns = row.array("conversations");
  if (const Json* loss_mask = row.find("loss_mask")) mark_turns(*loss_mask, turns);
  for (size_t i = 0; i < turns.size(); ++i) {
    conversation.messages.push_back(sharegpt_message(turns[i], i, row, options));
  }
  if (const Json* tools = row.find("tools")) {
    Json parsed = parse_tools(*tools);
    if (!parsed.is_null()) conversation.context["tools"] = std::move(parsed);
  }
  check_conversation(conversation);
  return conversation;
}

}  // namespace qlora::data
