#include "data/readers/conversation.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "data/readers/message_content.h"
#include "data/readers/tool_calls.h"
#include "data/readers/turn_marks.h"

namespace qlora::data {
namespace {

constexpr std::array kRoles = {"system", "developer", "user",   "assistant",
                               "tool",   "function",  "ipython"};

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

// Keys without a value say nothing: tables give every message the keys of all, and templates ask
// whether one is there.
void drop_nulls(Json& message) {
  for (auto item = message.begin(); item != message.end();) {
    const bool says_nothing = item.value().is_null() && item.key() != "content";
    item = says_nothing ? message.erase(item) : std::next(item);
  }
}

bool begins_with_system(const Json& messages) {
  if (messages.empty() || !messages[0].is_object() || !messages[0].contains("content"))
    return false;
  const auto role = messages[0].find("role");
  return role != messages[0].end() && (*role == "system" || *role == "developer");
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
    // What an assistant says and what it calls may be messages of their own.
    const bool calls =
        i > 0 && (messages[i].contains("tool_calls") || messages[i - 1].contains("tool_calls"));
    if (role == previous && (role == "user" || (role == "assistant" && !calls))) {
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

Json template_context(const Row& row) {
  Json context = Json::object();
  if (const Json* kwargs = row.find("chat_template_kwargs")) {
    if (!kwargs->is_object())
      fail<FormatError>("chat_template_kwargs must be an object, found {}", describe_type(*kwargs));
    context = *kwargs;
  }
  Json tools;
  if (const Json* own = row.find("tools")) tools = parse_tools(*own);
  if (tools.is_null() && context.contains("tools")) tools = parse_tools(context["tools"]);
  // Tools that are null are none, for whoever asks whether there are any.
  context.erase("tools");
  if (!tools.is_null()) context["tools"] = std::move(tools);
  return context;
}

std::optional<std::string> system_to_add(const Row& row, const Json& messages) {
  const std::string text = row.optional_text("system").value_or("");
  if (!begins_with_system(messages)) {
    const std::string& added = text.empty() ? row.dataset().system : text;
    return added.empty() ? std::nullopt : std::optional(added);
  }
  const Json& own = messages[0]["content"];
  if (!text.empty() && own.is_string() && own.get_ref<const std::string&>() != text) {
    fail<FormatError>(
        "the row's '{}' is {}, and its messages begin with the system message {}; remove one, or "
        "set fields: {{system: none}} to take that of the messages alone",
        row.file_field("system"), shown(text), shown(own));
  }
  return std::nullopt;
}

void add_system(const Row& row, Conversation& conversation) {
  const auto text = system_to_add(row, conversation.messages);
  if (!text) return;
  Json& messages = conversation.messages;
  messages.insert(messages.begin(), Json{{"role", "system"}, {"content", *text}});
  ++conversation.num_added;
}

void check_conversation(Conversation& conversation, bool needs_answer) {
  Json& messages = conversation.messages;
  if (messages.empty()) fail<FormatError>("a conversation must have messages, found none");
  bool trained = false, answered = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    Json& message = messages[i];
    check_role(message, i);
    drop_nulls(message);
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
