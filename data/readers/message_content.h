// What a message says, as the one text that templates and masks work with; and rows that say more
// than text.
#pragma once

#include <cstddef>
#include <string>

#include "data/example.h"
#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// Content as a string: parts such as {"type": "text", "text": "..."} are joined, as templates that
// know parts write them, and their marks become the message's (turn_marks.h); null becomes "" where
// the message has tool_calls or thoughts. FormatError that names message `index`, and the part, if
// it is something else, an image for example, if the message or a part has a picture, a film or a
// sound beside its text, or if an assistant says nothing at all.
void normalize_content(nlohmann::ordered_json& message, size_t index);

// Whether rows keep pictures, films or sounds in a field of this name: "images", "audio", ...
bool is_media_field(const std::string& name);

// FormatError that names the field if a row of conversations has something in such a field;
// nothing if `dataset.fields` maps it.
void refuse_media(const nlohmann::ordered_json& row, const DatasetOptions& dataset);

}  // namespace qlora::data
