// Rows of ShareGPT: {"conversations": [{"from": "human", "value": "..."}, ...]}, with "system",
// "tools", "chat_template_kwargs" and "loss_mask" (whether each turn is trained) beside them.
// function_call turns become assistant turns with tool_calls, observations become tool turns.
// Further keys of a turn reach the template as they are.
#include <map>

#include "base/error.h"
#include "data/readers/conversation.h"
#include "data/readers/reader.h"
#include "data/readers/tool_calls.h"
#include "data/readers/turn_marks.h"
#include "io/json_text.h"

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
      {"function", "tool"},
      {"function_response", "tool"},
      {"tool_response", "tool"},
      {"tool_result", "tool"},
      {"function_call", "function_call"},
      {"tool_call", "function_call"},
  };
  return map;
}

bool writes_tool_calls(const Row& row, const ReaderOptions& options) {
  if (options.template_writes_tool_calls == options.writes_tool_calls_beside_tools)
    return options.template_writes_tool_calls;
  return template_context(row).contains("tools") ? options.writes_tool_calls_beside_tools
                                                 : options.template_writes_tool_calls;
}

// The call of a function as text, for templates that do not write calls.
Json text_of_call(const Json& value) {
  return value.is_string() ? value : Json(io::json_text_in_utf8(value));
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
  if (!from.is_string()) {
    fail<FormatError>("'{}' of message {} must be a string, found {}", from_field, index,
                      describe_type(from));
  }
  const auto role = roles().find(from.get<std::string>());
  if (role == roles().end()) {
    fail<FormatError>(
        "message {} is from '{}'; known are human, gpt, system, function_call, observation and "
        "function_response (and user, assistant, model, bot, tool, tool_call, tool_response)",
        index, from.get<std::string>());
  }
  const bool calls = role->second == "function_call";
  if (!value.is_string() && !value.is_array() && !(calls && value.is_object())) {
    fail<FormatError>("'{}' of message {} must be a string, found {}", value_field, index,
                      describe_type(value));
  }
  Json message;
  if (!calls) {
    message = Json{{"role", role->second}, {"content", value}};
  } else if (writes_tool_calls(row, options)) {
    message = message_of_call(value, index);
  } else {
    message = Json{{"role", "assistant"}, {"content", text_of_call(value)}};
  }
  for (const auto& [key, further] : turn.items())
    if (key != from_field && key != value_field && !message.contains(key)) message[key] = further;
  return message;
}

Record read_sharegpt(const Row& row, const ReaderOptions& options) {
  Conversation conversation;
  Json turns = row.array("conversations");
  if (const Json* loss_mask = row.find("loss_mask")) mark_turns(*loss_mask, turns);
  for (size_t i = 0; i < turns.size(); ++i) {
    conversation.messages.push_back(sharegpt_message(turns[i], i, row, options));
  }
  conversation.context = template_context(row);
  check_conversation(conversation);
  add_system(row, conversation);
  return conversation;
}

}  // namespace qlora::data
