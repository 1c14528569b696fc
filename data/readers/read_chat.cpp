// Rows of OpenAI-style chat: {"messages": [{"role", "content", ...}], "tools": [...]}. Further keys
// of a message reach the template as they are; "chat_template_kwargs" are variables for the
// template (enable_thinking, ...), "loss_mask" says for each message whether it is trained.
#include "base/error.h"
#include "data/readers/conversation.h"
#include "data/readers/reader.h"
#include "data/readers/turn_marks.h"

namespace qlora::data {
namespace {

// Keys that `fields` renames inside each message.
void rename_key(Json& message, const std::string& theirs, const char* ours) {
  if (theirs == ours || !message.is_object() || !message.contains(theirs)) return;
  message[ours] = message[theirs];
  message.erase(theirs);
}

}  // namespace

Record read_chat(const Row& row, const ReaderOptions&) {
  Conversation conversation;
  conversation.messages = row.array("messages");
  for (Json& message : conversation.messages) {
    rename_key(message, row.file_field("role"), "role");
    rename_key(message, row.file_field("content"), "content");
  }
  if (const Json* loss_mask = row.find("loss_mask")) mark_turns(*loss_mask, conversation.messages);
  if (const Json* kwargs = row.find("chat_template_kwargs")) {
    if (!kwargs->is_object()) {
      fail<FormatError>("chat_template_kwargs must be an object, found {}", describe_type(*kwargs));
    }
    conversation.context = *kwargs;
  }
  if (const Json* tools = row.find("tools")) {
    Json parsed = parse_tools(*tools);
    if (!parsed.is_null()) conversation.context["tools"] = std::move(parsed);
  }
  check_conversation(conversation);
  return conversation;
}

}  // namespace qlora::data
