// Rows of OpenAI-style chat: {"messages": [{"role", "content", ...}], "tools": [...]}. Further keys
// of a message reach the template as they are; "chat_template_kwargs" are variables for the
// template (enable_thinking, ...), "system" is a system message in front of them, "loss_mask" says
// for each message whether it is trained.
#include "base/error.h"
#include "data/readers/conversation.h"
#include "data/readers/reader.h"
#include "data/readers/tool_calls.h"
#include "data/readers/turn_marks.h"

namespace qlora::data {
namespace {

// Keys that `fields` renames inside each message.
void rename_key(Json& message, const std::string& theirs, const char* ours) {
  if (theirs == ours || !message.is_object() || !message.contains(theirs)) return;
  message[ours] = message[theirs];
  message.erase(theirs);
}

// ms-swift's turns that are a call of a tool and nothing else, or a tool's answer.
void take_tool_role(Json& message, size_t index) {
  if (!message.is_object() || !message.contains("role")) return;
  const Json& role = message["role"];
  if (role == "tool_response") message["role"] = "tool";
  if (role != "tool_call" && role != "function_call") return;
  const Json content = message.contains("content") ? message["content"] : Json(nullptr);
  const Json call = message_of_call(content, index);
  for (const auto& [key, value] : call.items()) message[key] = value;
}

}  // namespace

Record read_chat(const Row& row, const ReaderOptions&) {
  Conversation conversation;
  conversation.messages = row.array("messages");
  for (size_t i = 0; i < conversation.messages.size(); ++i) {
    Json& message = conversation.messages[i];
    rename_key(message, row.file_field("role"), "role");
    rename_key(message, row.file_field("content"), "content");
    take_tool_role(message, i);
  }
  if (const Json* loss_mask = row.find("loss_mask")) mark_turns(*loss_mask, conversation.messages);
  conversation.context = template_context(row);
  check_conversation(conversation);
  add_system(row, conversation);
  return conversation;
}

}  // namespace qlora::data
