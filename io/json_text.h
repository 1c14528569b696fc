// JSON values to text and back, compiled once: nlohmann's parser and writer are templates that cost
// each file that calls them by themselves two seconds of the compiler.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace qlora::io {

// As nlohmann's own parse(): throws nlohmann::json::parse_error. For files that we are given,
// io/json.h is stricter.
nlohmann::json json_from_text(std::string_view text);
nlohmann::ordered_json ordered_json_from_text(std::string_view text);
// FormatError that names `source` and what kind of file it is, or line and column, in place of
// nlohmann's exception.
nlohmann::json json_from_text(std::string_view text, const std::string& source);
// A value with is_discarded() if the text is not JSON.
nlohmann::json json_or_discarded(std::string_view text);
nlohmann::ordered_json ordered_json_or_discarded(std::string_view text);

// As nlohmann's own dump(): one line, or lines that are `indent` deeper a level. A string that is
// not UTF-8 throws.
std::string json_text(const nlohmann::json& value, int indent = -1);
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);
// Bytes that are not UTF-8 become U+FFFD.
std::string json_text_in_utf8(const nlohmann::json& value, int indent = -1);
std::string json_text_in_utf8(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace qlora::io
