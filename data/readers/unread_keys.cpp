#include "data/readers/unread_keys.h"

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "base/ascii_case.h"
#include "data/readers/reader.h"
#include "data/readers/turn_marks.h"

namespace qlora::data {
namespace {

// What rows carry for people and programs, and no one trains by.
constexpr std::array kHarmless = {"id",
                                  "_id",
                                  "idx",
                                  "index",
                                  "uid",
                                  "uuid",
                                  "row_id",
                                  "sample_id",
                                  "doc_id",
                                  "hash",
                                  "source",
                                  "src",
                                  "origin",
                                  "dataset",
                                  "data_source",
                                  "split",
                                  "subset",
                                  "config",
                                  "url",
                                  "urls",
                                  "link",
                                  "file",
                                  "filename",
                                  "path",
                                  "name",
                                  "title",
                                  "author",
                                  "date",
                                  "created",
                                  "created_at",
                                  "timestamp",
                                  "time",
                                  "lang",
                                  "language",
                                  "domain",
                                  "topic",
                                  "topics",
                                  "tag",
                                  "tags",
                                  "category",
                                  "categories",
                                  "type",
                                  "task",
                                  "task_type",
                                  "task_name",
                                  "license",
                                  "version",
                                  "meta",
                                  "metadata",
                                  "info",
                                  "comment",
                                  "comments",
                                  "note",
                                  "notes",
                                  "model",
                                  "model_name",
                                  "generator",
                                  "num_tokens",
                                  "num_turns",
                                  "length",
                                  "turns",
                                  "user_id",
                                  "conversation_id",
                                  "conversation_hash",
                                  "prompt_id",
                                  "message_id",
                                  "parent_id",
                                  "tree_id",
                                  "created_date"};

// Keys of messages that templates may or may not write, which a reader cannot judge.
constexpr std::array kOfMessages = {"role",          "content",      "tool_calls",
                                    "function_call", "tool_call_id", "name"};

// Keys of a content part that are read, or that no one trains by.
constexpr std::array kOfParts = {"type", "text", "cache_control", "annotations", "logprobs"};

// The fields that hold messages: lists, or in pairs of answers single ones.
constexpr std::array kListsOfMessages = {"messages", "conversations", "prompt", "chosen",
                                         "rejected"};

// Keys of pretokenized rows that repeat what is known.
constexpr std::array kOfTokenRows = {"special_tokens_mask", "token_type_ids", "text"};

// Parts of names that speak of what is trained, how much, or which answer is the better one.
constexpr std::array kDeciding = {
    "mask",    "weight",     "train",   "loss",    "label",    "prefer",  "reward", "score",
    "chosen",  "reject",     "margin",  "rank",    "rating",   "ignore",  "skip",   "position_ids",
    "segment", "cu_seqlens", "seq_len", "desirab", "accepted", "thumbs_", "winner", "kto_"};

// What data sets call that which an answer is to. Not "source", "task" and "topic", which mostly
// say where a row comes from.
constexpr std::array kOfPrompts = {
    "question",    "questions",      "instruction", "instructions", "query",
    "input",       "inputs",         "problem",     "context",      "passage",
    "history",     "messages",       "dialogue",    "dialog",       "conversation",
    "post",        "user",           "request",     "system",       "system_prompt",
    "user_prompt", "system_message", "tools",       "functions",    "prompts"};

// What other data sets call fields that a row of ours may lack.
const std::multimap<std::string, std::string>& other_names() {
  static const std::multimap<std::string, std::string> names = {
      {"context", "input"},           {"inputs", "input"},
      {"passage", "input"},           {"system_prompt", "system"},
      {"system_message", "system"},   {"functions", "tools"},
      {"tool_definitions", "tools"},  {"past", "history"},
      {"mask", "loss_mask"},          {"label_ids", "labels"},
      {"attention", "attention_mask"}};
  return names;
}

template <size_t size>
bool is_one_of(const std::array<const char*, size>& names, const std::string& key) {
  return std::find(names.begin(), names.end(), key) != names.end();
}

std::string file_field(const DatasetOptions& dataset, const std::string& name) {
  const auto mapped = dataset.fields.find(name);
  return mapped == dataset.fields.end() ? name : mapped->second;
}

// ChatTemplate gives what a model thought under every name that templates know it by.
bool is_written(const std::string& key, const std::string& template_source) {
  const auto stands_there = [&](const std::string& name) {
    return template_source.find(name) != std::string::npos;
  };
  const std::array thoughts = {"reasoning_content", "reasoning", "thinking"};
  if (is_one_of(thoughts, key)) return std::any_of(thoughts.begin(), thoughts.end(), stands_there);
  return stands_there(key);
}

bool is_mark(const std::string& key) {
  const auto& marks = turn_mark_keys();
  return std::find(marks.begin(), marks.end(), key) != marks.end();
}

void collect_of_parts(const Json& parts, const std::string& content,
                      std::set<std::string>& unread) {
  for (const Json& part : parts) {
    if (!part.is_object()) continue;
    for (const auto& [key, value] : part.items())
      if (!value.is_null() && !is_one_of(kOfParts, key) && !is_mark(key) &&
          !is_one_of(kHarmless, ascii_lower_case(key)))
        unread.insert(content + "[]." + key);
  }
}

// What of messages is read, and the keys that are not.
struct MessageKeys {
  const std::set<std::string>& fields;
  const std::array<std::string, 2> contents;  // what messages of each kind call their content
  const std::string template_source;

  bool is_read(const std::string& key) const {
    return fields.contains(key) || is_one_of(kOfMessages, key) || is_mark(key) ||
           is_one_of(kHarmless, ascii_lower_case(key)) || is_written(key, template_source);
  }

  void collect(const Json& message, const std::string& name, std::set<std::string>& unread) const {
    if (!message.is_object()) return;
    for (const auto& [key, value] : message.items()) {
      if (value.is_null()) continue;
      if (!is_read(key)) unread.insert(name + "." + key);
      if (value.is_array() && std::find(contents.begin(), contents.end(), key) != contents.end())
        collect_of_parts(value, name + "." + key, unread);
    }
  }
};

}  // namespace

std::set<std::string> unread_keys(const Json& row, const DatasetOptions& dataset,
                                  const std::string& template_source) {
  const Format& format = find_format(dataset.format);
  std::set<std::string> read, unread;
  for (const std::string& field : format.fields) read.insert(file_field(dataset, field));
  // The prompt of a pair may also be called messages.
  if (format.name == kPreferenceFormat && !row.contains(file_field(dataset, "prompt")))
    read.insert(file_field(dataset, "messages"));
  for (const auto& [key, value] : row.items()) {
    const bool known = read.contains(key) || is_one_of(kHarmless, ascii_lower_case(key)) ||
                       (!format.has_turns && is_one_of(kOfTokenRows, key));
    if (!known && !value.is_null()) unread.insert(key);
  }
  const MessageKeys keys{read,
                         {file_field(dataset, "content"), file_field(dataset, "value")},
                         format.keeps_message_keys ? template_source : ""};
  for (const char* list : kListsOfMessages) {
    const std::string name = file_field(dataset, list);
    const auto messages = row.find(name);
    if (!read.contains(name) || messages == row.end()) continue;
    if (messages->is_object()) keys.collect(*messages, name, unread);
    if (!messages->is_array()) continue;
    for (const Json& message : *messages) keys.collect(message, name + "[]", unread);
  }
  return unread;
}

bool may_decide_training(const std::string& key) {
  const std::string name = ascii_lower_case(key);
  return std::any_of(kDeciding.begin(), kDeciding.end(),
                     [&](const char* part) { return name.find(part) != std::string::npos; });
}

bool may_belong_to_prompt(const std::string& key) {
  return is_one_of(kOfPrompts, ascii_lower_case(key));
}

std::map<std::string, std::string> optional_fields(const DatasetOptions& dataset) {
  // A row without one of the others is refused, but for prompt, which is only where it is named.
  constexpr std::array optional = {"input",           "system",
                                   "history",         "tools",
                                   "loss_mask",       "chat_template_kwargs",
                                   "labels",          "mask",
                                   "attention_mask",  "completion_mask",
                                   "assistant_masks", "conversations"};
  std::map<std::string, std::string> fields;
  for (const auto& [ours, theirs] : dataset.fields)
    if (ours != theirs && theirs != "none" && is_one_of(optional, ours)) fields[ours] = theirs;
  return fields;
}

std::string field_it_may_be(const std::string& key, const DatasetOptions& dataset) {
  const Format& format = find_format(dataset.format);
  const auto [begin, end] = other_names().equal_range(key);
  for (auto name = begin; name != end; ++name)
    if (!dataset.fields.contains(name->second) &&
        std::find(format.fields.begin(), format.fields.end(), name->second) != format.fields.end())
      return name->second;
  return "";
}

}  // namespace qlora::data
