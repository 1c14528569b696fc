#include "data/readers/message_content.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"
#include "data/readers/reader.h"
#include "data/readers/turn_marks.h"

namespace qlora::data {
namespace {

constexpr std::array<std::string_view, 6> kMediaFields = {"image",  "images", "video",
                                                          "videos", "audio",  "audios"};
// The last two are those of OpenAI's Responses API.
constexpr std::array<std::string_view, 3> kTextParts = {"text", "input_text", "output_text"};

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

bool has_tool_calls(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

bool has_thoughts(const Json& message) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const auto thoughts = message.find(name);
    if (thoughts != message.end() && thoughts->is_string() &&
        !is_blank(thoughts->get<std::string>()))
      return true;
  }
  return false;
}

bool is_text_part(const Json& type) {
  return type.is_string() &&
         std::ranges::count(kTextParts, std::string_view(type.get_ref<const std::string&>())) > 0;
}

// "image_url", "input_audio", "video": a type, or a key, of a picture, a film or a sound.
bool names_media(const std::string& name) {
  return std::ranges::any_of(std::array{"image", "video", "audio"}, [&](const char* kind) {
    return name.find(kind) != std::string::npos;
  });
}

// Whether a field holds anything: not null, false, "", [], {}, nor lists and objects of such, as
// far as `levels` down.
bool holds_something(const Json& value, int levels = 4) {
  if (value.is_null() || value == false) return false;
  if (value.is_string()) return !is_blank(value.get<std::string>());
  if (!value.is_structured() || levels == 0) return true;
  return std::any_of(value.begin(), value.end(),
                     [levels](const Json& item) { return holds_something(item, levels - 1); });
}

// A content part's key that holds a picture, a film or a sound; empty if there is none.
std::string media_key(const Json& part) {
  for (const auto& [key, value] : part.items())
    if (names_media(key) && holds_something(value)) return key;
  return "";
}

// What keeps a content part from being {"type": "text", "text": "..."}; empty if nothing does.
std::string fault_of_part(const Json& part) {
  if (!part.is_object()) return "is " + describe_type(part);
  const auto type = part.find("type");
  if (type == part.end()) return "has no type";
  if (!is_text_part(*type)) return "has the type " + shown(*type);
  const auto text = part.find("text");
  if (text == part.end()) return "has no text";
  if (!text->is_string()) return "has " + describe_type(*text) + " as its text";
  const std::string media = media_key(part);
  return media.empty() ? "" : "has '" + media + "' beside its text";
}

std::string cure_of_part(const Json& part) {
  const auto is_media = [&] {
    const auto type = part.find("type");
    if (type == part.end()) return false;
    return (type->is_string() && names_media(type->get<std::string>())) || !media_key(part).empty();
  };
  if (part.is_object() && is_media())
    return "only text is read and trained here, so remove the row, or the part if the rest stands "
           "for itself";
  return "only parts like {\"type\": \"text\", \"text\": \"...\"} can be trained here";
}

// [{"type": "text", "text": "..."}, ...] -> one string.
void join_content_parts(Json& message, size_t index) {
  Json& content = message["content"];
  std::string joined;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string fault = fault_of_part(content[i]);
    if (!fault.empty())
      fail<FormatError>("message {} has a content part that is not text: part {} {}; {}", index, i,
                        fault, cure_of_part(content[i]));
    joined += content[i]["text"].get<std::string>();
  }
  take_part_marks(message, index);
  message["content"] = joined;
}

void refuse_media_of_message(const Json& message, size_t index) {
  for (const auto& [key, value] : message.items())
    if (is_media_field(key) && holds_something(value))
      fail<FormatError>(
          "'{}' of message {} is not empty: only text is read and trained here; remove the row, or "
          "the key if the text stands for itself",
          key, index);
}

bool is_mapped(const DatasetOptions& dataset, const std::string& key) {
  return std::ranges::any_of(dataset.fields,
                             [&](const auto& field) { return field.second == key; });
}

}  // namespace

void normalize_content(Json& message, size_t index) {
  refuse_media_of_message(message, index);
  const auto content = message.find("content");
  const bool says_more = has_tool_calls(message) || has_thoughts(message);
  if (content == message.end() || content->is_null()) {
    if (!says_more) fail<FormatError>("message {} must have content", index);
    message["content"] = "";
    return;
  }
  if (content->is_array()) join_content_parts(message, index);
  const Json& text = message["content"];
  if (!text.is_string()) {
    fail<FormatError>("the content of message {} must be a string, found {}{}", index,
                      describe_type(text),
                      text.is_object() ? "; write it as JSON in a string" : "");
  }
  if (message["role"] == "assistant" && !says_more && is_blank(text.get<std::string>())) {
    fail<FormatError>(
        "message {} is an assistant turn without text: there is nothing to train on; fill it in or "
        "remove the row",
        index);
  }
}

bool is_media_field(const std::string& name) {
  return std::ranges::count(kMediaFields, std::string_view(name)) > 0;
}

void refuse_media(const Json& row, const DatasetOptions& dataset) {
  if (!has_conversations(find_format(dataset.format))) return;
  for (const auto& [key, value] : row.items()) {
    if (!is_media_field(key) || !holds_something(value) || is_mapped(dataset, key)) continue;
    fail<FormatError>(
        "the row's field '{}' is not empty: only text is read and trained here, and what its "
        "messages say of an image, a film or a sound (<image> and the like) would be said of "
        "nothing; remove the row, or the field if the texts stand for themselves",
        key);
  }
}

}  // namespace qlora::data
