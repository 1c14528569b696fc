#include "data/readers/conversation.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "data/exact_json.h"
#include "data/readers/turn_marks.h"

namespace qlora::data {
namespace {

constexpr std::array kRoles = {"system", "developer", "user",   "assistant",
                               "tool",   "function",  "ipython"};

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

bool has_tool_calls(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

void check_role(const Json& message, size_t index) {
  if (!message.is_object()) {
    fail<FormatError>("message {} must be an object with role and content, found {}", index,
                      describe_type(message));
  }
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) {
    const bool sharegpt = message.contains("from") && message.contains("value");
    fail<FormatError>("message {} must have a role that is a string{}", index,
                      sharegpt ? "; it has from and value: this looks like sharegpt, set format: "
                                 "sharegpt (and fields: {conversations: messages})"
                               : "");
  }
  const auto name = role->get<std::string>();
  if (std::find(kRoles.begin(), kRoles.end(), name) != kRoles.end()) return;
  fail<FormatError>(
      "message {} has the unknown role '{}'; known are system, developer, user, assistant, tool, "
      "function, ipython{}",
      index, name,
      name == "human" || name == "gpt" ? " (human and gpt belong to format: sharegpt)" : "");
}

// What keeps a content part from being {"type": "text", "text": "..."}; empty if nothing does.
std::string fault_of_part(const Json& part) {
  if (!part.is_object()) return "is " + describe_type(part);
  const auto type = part.find("type");
  if (type == part.end()) return "has no type";
  if (*type != "text") return "has the type " + shown(*type);
  const auto text = part.find("text");
  if (text == part.end()) return "has no text";
  return text->is_string() ? "" : "has " + describe_type(*text) + " as its text";
}

// [{"type": "text", "text": "..."}, ...] -> one string.
void join_content_parts(Json& content, size_t index) {
  std::string joined;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string fault = fault_of_part(content[i]);
    if (!fault.empty()) {
      fail<FormatError>(
          "message {} has a content part that is not text: part {} {}; only parts like "
          "{{\"type\": \"text\", \"text\": \"...\"}} can be trained here",
          index, i, fault);
    }
    joined += content[i]["text"].get<std::string>();
  }
  content = joined;
}

void normalize_content(Json& message, size_t index) {
  const auto content = message.find("content");
  const bool calls = has_tool_calls(message);
  if (content == message.end() || content->is_null()) {
    if (!calls) fail<FormatError>("message {} must have content", index);
    message["content"] = "";
    return;
  }
  if (content->is_array()) join_content_parts(*content, index);
  if (!content->is_string()) {
    fail<FormatError>("the content of message {} must be a string, found {}", index,
                      describe_type(*content));
  }
  if (message["role"] == "assistant" && !calls && is_blank(content->get<std::string>())) {
    fail<FormatError>(
        "message {} is an assistant turn without text: there is nothing to train on; fill it in or "
        "remove the row",
        index);
  }
}

void normalize_tool_calls(Json& message, size_t index) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end()) return;
  if (calls->is_null() || (calls->is_array() && calls->empty())) {
    message.erase("tool_calls");  // templates ask whether it is there, not whether it holds any
    return;
  }
  if (!calls->is_array()) {
    fail<FormatError>("tool_calls of message {} must be an array, found {}", index,
                      describe_type(*calls));
  }
  for (Json& call : *calls) {
    if (!call.is_object()) {
      fail<FormatError>("a tool call of message {} must be an object, found {}", index,
                        describe_type(call));
    }
    Json& function = call.contains("function") ? call["function"] : call;
    if (!function.is_object() || !function.contains("name")) {
      fail<FormatError>("a tool call of message {} must name its function", index);
    }
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    Json parsed = exact_json_or_discarded(function["arguments"].get<std::string>());
    if (parsed.is_object()) function["arguments"] = std::move(parsed);
  }
}

void check_order(const Json& messages) {
  std::string previous;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto role = messages[i]["role"].get<std::string>();
    const bool setup = role == "system" || role == "developer";
    if (previous.empty() && role != "user" && !setup) {
      fail<FormatError>(
          "message {} has the role '{}', but a conversation must begin with a user turn (after an "
          "optional system turn); remove what comes before the first user turn",
          i, role);
    }
    if (role == previous && (role == "user" || role == "assistant")) {
      fail<FormatError>(
          "messages {} and {} both have the role '{}'; user and assistant must alternate: join "
          "them or remove one",
          i - 1, i, role);
    }
    if (!setup || !previous.empty()) previous = role;
  }
}

}  // namespace

bool is_trained_turn(const Json& message) {
  return message["role"] == "assistant" && training_mark(message, 0).value_or(true);
}

Json parse_tools(const Json& tools) {
  if (tools.is_null()) return nullptr;
  Json parsed = tools;
  if (tools.is_string()) {
    const auto text = tools.get<std::string>();
    if (is_blank(text)) return nullptr;
    parsed = exact_json_or_discarded(text);
  }
  if (!parsed.is_array()) {
    fail<FormatError>("tools must be an array of function descriptions, found {}",
                      parsed.is_discarded() ? "a string that is not JSON" : describe_type(parsed));
  }
  return parsed.empty() ? Json(nullptr) : parsed;
}

void check_conversation(Conversation& conversation, bool needs_answer) {
  Json& messages = conversation.messages;
  if (messages.empty()) fail<FormatError>("a conversation must have messages, found none");
  bool trained = false, answered = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    Json& message = messages[i];
    check_role(message, i);
    normalize_tool_calls(message, i);
    normalize_content(message, i);
    const bool answers = message["role"] == "assistant";
    answered = answered || answers;
    trained = (training_mark(message, i).value_or(true) && answers) || trained;
  }
  check_order(messages);
  if (needs_answer && !trained) {
    fail<FormatError>("a conversation must have an assistant turn to train on, found none{}",
                      answered               ? "; all are marked as context only: remove the row"
                      : messages.size() == 1 ? " (only one message)"
                                             : "");
  }
}

}  // namespace qlora::data
