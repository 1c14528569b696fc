// Rows of two answers to one prompt, as TRL and LLaMA-Factory have them:
//
//   {"prompt": "...", "chosen": "...", "rejected": "..."}           texts, taken as they stand
//   {"prompt": [messages], "chosen": [messages], "rejected": [messages]}
//   {"messages": [messages], "chosen": "...", "rejected": "..."}    answers of the assistant
//   {"conversations": [{"from", "value"}, ...], "chosen": {"from", "value"}, "rejected": {...}}
//
// with "system", "tools" and "chat_template_kwargs" beside messages; beside texts the first two are
// refused, which have no place there. Without a prompt it is what both answers begin with, unless a
// key of another name may be it. Data sets whose answers are whole conversations repeat the prompt
// as a text, which is then not needed.
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/readers/conversation.h"
#include "data/readers/reader.h"
#include "data/readers/tool_calls.h"
#include "data/readers/unread_keys.h"

namespace qlora::data {
namespace {

Json list_of(const Json& value) { return value.is_array() ? value : Json::array({value}); }

bool is_messages(const Json& value) { return value.is_array() || value.is_object(); }

[[noreturn]] void fail_as_same(const Row& row) {
  fail<FormatError>("'{}' and '{}' are the same: there is nothing to prefer; remove the row",
                    row.file_field("chosen"), row.file_field("rejected"));
}

// How many bytes of two texts are one prompt: what they have in common, but for a space at its end,
// which belongs to the answers (TRL), and never a part of a character or a whole text.
size_t shared_prompt(const std::string& a, const std::string& b) {
  const auto differ = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  auto size = static_cast<size_t>(differ.first - a.begin());
  size = std::min({size, a.size() - 1, b.size() - 1});
  const auto is_inside_character = [&](size_t at) {
    return (static_cast<unsigned char>(a[at]) & 0xc0) == 0x80;
  };
  while (size > 0 && is_inside_character(size)) --size;
  if (size > 0 && a[size - 1] == ' ') --size;
  return size;
}

// Whether fields: {prompt: ...} names a field for it; none, which is no field, says that there is
// none.
bool names_prompt(const Row& row) {
  return row.dataset().fields.contains("prompt") && row.file_field("prompt") != "none";
}

// The keys of a row without a prompt that may be it under another name.
std::vector<std::string> other_prompts(const Row& row) {
  std::vector<std::string> keys;
  if (row.dataset().fields.contains("prompt")) return keys;
  for (const auto& [key, value] : row.value().items())
    if (!value.is_null() && !value.empty() && value != "" && may_belong_to_prompt(key))
      keys.push_back("'" + key + "'");
  return keys;
}

// Of a row that has no prompt by its name.
void refuse_other_prompts(const Row& row) {
  const std::vector<std::string> keys = other_prompts(row);
  if (keys.empty()) return;
  fail<FormatError>(
      "the row has no 'prompt', but {}, which may be what both answers are to; name its field with "
      "fields: {{prompt: ...}}, or set fields: {{prompt: none}} to take what both answers begin "
      "with",
      fmt::join(keys, " and "));
}

// A prompt that is a text is all that the model reads: what only messages have a place for would be
// lost.
void refuse_what_texts_lose(const Row& row) {
  const char* lost = nullptr;
  if (const Json* tools = row.find("tools"))
    if (!parse_tools(*tools).is_null()) lost = "tools";
  if (system_to_add(row, Json::array())) lost = "system";
  if (lost == nullptr) return;
  fail<FormatError>(
      "the prompt and the answers are texts, beside which the {}'s '{}' has no place; write it "
      "into "
      "the prompt, or make the prompt messages{}",
      row.find(lost) != nullptr ? "row" : "data set", row.file_field(lost),
      row.find(lost) != nullptr ? fmt::format(", or set fields: {{{}: none}}", lost) : "");
}

Record read_texts(const Row& row) {
  refuse_what_texts_lose(row);
  TextPair pair{"", row.text("chosen"), row.text("rejected")};
  for (const auto& [name, text] : {std::pair("chosen", &pair.chosen), {"rejected", &pair.rejected}})
    if (text->empty())
      fail<FormatError>("the field '{}' is empty: an answer must say something; remove the row",
                        row.file_field(name));
  if (pair.chosen == pair.rejected) fail_as_same(row);
  if (row.find("prompt") != nullptr || names_prompt(row)) {
    pair.prompt = row.text("prompt") + row.dataset().separator;
    return pair;
  }
  refuse_other_prompts(row);
  const size_t size = shared_prompt(pair.chosen, pair.rejected);
  if (size == 0)
    fail<FormatError>(
        "the row has no 'prompt', and '{}' and '{}' begin with no common text that could be one",
        row.file_field("chosen"), row.file_field("rejected"));
  pair.prompt = pair.chosen.substr(0, size);
  pair.chosen.erase(0, size);
  pair.rejected.erase(0, size);
  return pair;
}

// A field's messages in the form of chat rows.
Json messages_of(const Row& row, const std::string& name, const ReaderOptions& options) {
  Json messages = list_of(row.required(name));
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    const bool sharegpt = message.is_object() && message.contains(row.file_field("from")) &&
                          message.contains(row.file_field("value"));
    if (sharegpt) messages[i] = sharegpt_message(message, i, row, options);
  }
  return messages;
}

// An answer: messages, or the text of an assistant's one.
Json answer_of(const Row& row, const std::string& name, const ReaderOptions& options) {
  if (!row.required(name).is_string()) return messages_of(row, name, options);
  return Json::array({Json{{"role", "assistant"}, {"content", row.text(name)}}});
}

// "prompt", or "messages" where there is none.
std::string prompt_name(const Row& row) {
  return row.find("prompt") == nullptr && row.find("messages") != nullptr ? "messages" : "prompt";
}

Json user_turn(const std::string& text) { return Json{{"role", "user"}, {"content", text}}; }

bool begins_with_answer(const Json& messages) {
  if (messages.empty() || !messages[0].is_object()) return false;
  const auto role = messages[0].find("role");
  return role != messages[0].end() && *role == "assistant";
}

// The messages in front of both answers, as far as fields of their own hold them.
Json prompt_messages(const Row& row, const Json& chosen, const ReaderOptions& options) {
  if (row.find("conversations") != nullptr) return messages_of(row, "conversations", options);
  const std::string name = prompt_name(row);
  const Json* prompt = row.find(name);
  if (prompt == nullptr) {
    if (begins_with_answer(chosen)) refuse_other_prompts(row);
    return Json::array();
  }
  if (is_messages(*prompt)) return messages_of(row, name, options);
  const std::string text = row.text(name);
  return begins_with_answer(chosen) ? Json::array({user_turn(text)}) : Json::array();
}

// The conversation that ends in one of the answers.
Conversation conversation_with(const Json& prompt, const Json& answer, const Row& row,
                               const char* name) {
  Conversation conversation{prompt, template_context(row)};
  for (const Json& message : answer) conversation.messages.push_back(message);
  try {
    check_conversation(conversation);
    if (conversation.messages.back()["role"] != "assistant")
      throw FormatError("the last message must be an assistant's");
  } catch (const FormatError& error) {
    fail<FormatError>("with '{}': {}", row.file_field(name), error.what());
  }
  return conversation;
}

// How many messages both begin with.
size_t shared_messages(const Json& a, const Json& b) {
  size_t count = 0;
  while (count < std::min(a.size(), b.size()) && a[count] == b[count]) ++count;
  return count;
}

Record read_conversations(const Row& row, const ReaderOptions& options) {
  const Json chosen = answer_of(row, "chosen", options);
  const Json rejected = answer_of(row, "rejected", options);
  const Json given = prompt_messages(row, chosen, options);
  Json prompt = Json::array();
  if (const auto system = system_to_add(row, given.empty() ? chosen : given))
    prompt.push_back(Json{{"role", "system"}, {"content", *system}});
  for (const Json& message : given) prompt.push_back(message);
  ConversationPair pair{conversation_with(prompt, chosen, row, "chosen"),
                        conversation_with(prompt, rejected, row, "rejected"), prompt.size()};
  const Json& first = pair.chosen.messages;
  const Json& second = pair.rejected.messages;
  if (first == second) fail_as_same(row);
  if (given.empty()) pair.prompt_messages = shared_messages(first, second);
  const size_t begin = pair.prompt_messages;
  for (const Json* messages : {&first, &second})
    if (begin == 0 || begin >= messages->size() || (*messages)[begin]["role"] != "assistant")
      fail<FormatError>(
          "'{}' and '{}' must go on from one prompt with an assistant's answer each, but message "
          "{} is {}; give the messages before the answers in '{}'",
          row.file_field("chosen"), row.file_field("rejected"), begin,
          begin < messages->size() ? "of the role " + shown((*messages)[begin]["role"]) : "missing",
          row.file_field("prompt"));
  return pair;
}

}  // namespace

Record read_preference(const Row& row, const ReaderOptions& options) {
  const Json& chosen = row.required("chosen");
  const Json& rejected = row.required("rejected");
  const Json* prompt = row.find(prompt_name(row));
  const bool turns = row.find("conversations") != nullptr;
  if (chosen.is_string() && rejected.is_string() && !turns &&
      (prompt == nullptr || prompt->is_string()))
    return read_texts(row);
  for (const auto& [name, value] : {std::pair("chosen", &chosen), {"rejected", &rejected}})
    if (!is_messages(*value) && !(prompt != nullptr && value->is_string()))
      fail<FormatError>(
          "'{}' must be messages, as the row's others are, found {}; an answer to messages is "
          "{{\"role\": \"assistant\", \"content\": \"...\"}}",
          row.file_field(name), describe_type(*value));
  return read_conversations(row, options);
}

}  // namespace qlora::data
