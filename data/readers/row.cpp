#include "data/readers/row.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "data/exact_json.h"
#include "data/readers/message_content.h"
#include "data/readers/preference.h"
#include "fmt/ranges.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

constexpr size_t kShownBytes = 60;

// Names under which other projects store what we call by the first.
const std::vector<std::vector<std::string>>& synonyms() {
  static const std::vector<std::vector<std::string>> groups = {
      {"instruction", "question", "prompt", "query", "problem", "task"},
      {"output", "answer", "response", "completion", "solution", "target"},
      {"input", "context"},
      {"prompt", "instruction", "question", "query", "problem", "source"},
      {"completion", "response", "answer", "output", "solution", "target"},
      {"text", "content", "document"},
      {"messages", "conversation", "conversations", "dialog", "chat"},
      {"conversations", "conversation", "messages", "dialog"},
      {"input_ids", "tokens", "ids"},
      {"chosen", "chosen_response", "response_chosen", "preferred", "positive"},
      {"rejected", "rejected_response", "response_rejected", "dispreferred", "negative"},
  };
  return groups;
}

std::vector<std::string> field_names(const Json& row) {
  std::vector<std::string> names;
  for (const auto& [name, value] : row.items()) {
    if (names.size() == 20) {
      names.emplace_back("...");
      break;
    }
    names.push_back(shortened_utf8(name, kShownBytes));
  }
  return names;
}

bool has(const Json& row, std::initializer_list<const char*> fields) {
  return std::all_of(fields.begin(), fields.end(),
                     [&](const char* field) { return row.contains(field); });
}

// A message of a conversation, which is no row.
bool is_turn(const Json& value) {
  return value.is_object() && (has(value, {"role", "content"}) || has(value, {"from", "value"}));
}

}  // namespace

std::string describe_type(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

std::string shown(const Json& value) {
  return shortened_utf8(io::json_text_in_utf8(value), kShownBytes);
}

std::string guess_format(const Json& row) {
  if (!row.is_object()) return "";
  if (has(row, {"chosen", "rejected"})) return kPreferenceFormat;
  if (has(row, {"instruction", "output"})) return "alpaca";
  for (const char* field : {"messages", "conversations"}) {
    if (!row.contains(field) || !row[field].is_array() || row[field].empty()) continue;
    const Json& first = row[field][0];
    if (first.is_object() && has(first, {"from", "value"})) return "sharegpt";
    if (first.is_object() && has(first, {"role", "content"})) return "chat";
  }
  if (has(row, {"prompt", "completion"})) return "completion";
  if (has(row, {"input", "output"})) return "input_output";
  if (has(row, {"input_ids"})) return "pretokenized";
  if (has(row, {"text"})) return "text";
  return "";
}

std::string member_with_rows(const Json& object) {
  for (const auto& [name, value] : object.items()) {
    if (value.is_array() && !value.empty() && !is_turn(value[0]) &&
        std::all_of(value.begin(), value.end(), [](const Json& row) { return row.is_object(); }))
      return fmt::format("'{}', a list of {} objects", shortened_utf8(name, kShownBytes),
                         value.size());
  }
  return "";
}

Row::Row(const Json& value, const DatasetOptions& dataset) : value_(value), dataset_(dataset) {
  if (!value.is_object()) {
    fail<FormatError>("a row must be an object like {{\"{}\": ...}}, found {}",
                      dataset.format == "chat" ? "messages" : "field", describe_type(value));
  }
  if (dataset.format != kPreferenceFormat) refuse_preference_data(value, dataset);
  refuse_media(value, dataset);
}

const std::string& Row::file_field(const std::string& name) const {
  const auto mapped = dataset_.fields.find(name);
  return mapped == dataset_.fields.end() ? name : mapped->second;
}

const Json* Row::find(const std::string& name) const {
  const auto found = value_.find(file_field(name));
  return found == value_.end() || found->is_null() ? nullptr : &*found;
}

std::string Row::other_name_of(const std::string& missing) const {
  for (const auto& group : synonyms()) {
    if (group.front() != missing) continue;
    for (const std::string& synonym : group)
      if (value_.contains(synonym)) return synonym;
  }
  return "";
}

std::string Row::suggestion(const std::string& missing) const {
  const std::string other_name = other_name_of(missing);
  const std::string guess = guess_format(value_);
  if (dataset_.format == kPreferenceFormat && missing == "chosen" && other_name.empty()) {
    // Other formats would refuse such rows.
    if (const std::string advice = advice_on_preference_data(value_, dataset_); !advice.empty())
      return advice;
  }
  const std::string list_field = value_.contains("messages") ? "messages" : "conversations";
  if (!guess.empty() && guess != dataset_.format) {
    const bool renamed = (guess == "sharegpt" && list_field == "messages") ||
                         (guess == "chat" && list_field == "conversations");
    return renamed ? fmt::format("this looks like {}: set format: {} and fields: {{{}: {}}}", guess,
                                 guess, guess == "chat" ? "messages" : "conversations", list_field)
                   : fmt::format("this looks like {}: set format: {}", guess, guess);
  }
  if (!other_name.empty())
    return fmt::format("if that is '{}', set fields: {{{}: {}}}", other_name, missing, other_name);
  if (const std::string member = member_with_rows(value_); !member.empty())
    return fmt::format("the rows may be in its member {}: write that list alone into the file",
                       member);
  return fmt::format("name the file's field with fields: {{{}: ...}}, or set another format",
                     missing);
}

const Json& Row::required(const std::string& name) const {
  const Json* found = find(name);
  if (found != nullptr) return *found;
  if (value_.contains(file_field(name))) {
    fail<FormatError>("the field '{}' must not be null; fill it in or remove the row",
                      file_field(name));
  }
  fail<FormatError>("format {} needs the field '{}', the row has only [{}]; {}", dataset_.format,
                    file_field(name), fmt::join(field_names(value_), ", "), suggestion(name));
}

std::string Row::text(const std::string& name) const {
  const Json& value = required(name);
  if (!value.is_string()) {
    fail<FormatError>("the field '{}' must be a string, found {}", file_field(name),
                      describe_type(value));
  }
  return value.get<std::string>();
}

std::optional<std::string> Row::optional_text(const std::string& name) const {
  if (find(name) == nullptr) return std::nullopt;
  return text(name);
}

Json Row::array(const std::string& name) const {
  const Json& value = required(name);
  if (value.is_array()) return value;
  if (value.is_string()) {
    Json parsed = exact_json_or_discarded(value.get<std::string>());
    if (parsed.is_array()) return parsed;
  }
  fail<FormatError>("the field '{}' must be an array, found {}", file_field(name),
                    value.is_string() ? "a string that is not one in JSON" : describe_type(value));
}

}  // namespace qlora::data
