#include "io/json_text.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/file_kind.h"
#include "io/json_fault.h"

namespace qlora::io {

using nlohmann::json;
using nlohmann::ordered_json;

json json_from_text(std::string_view text) { return json::parse(text); }
ordered_json ordered_json_from_text(std::string_view text) { return ordered_json::parse(text); }

json json_from_text(std::string_view text, const std::string& source) {
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    if (const std::string kind = text_file_kind(text); !kind.empty())
      fail<FormatError>("{} must be JSON, but is {}", source, kind);
    fail<FormatError>("{} is not valid JSON{}", source, json_fault(text, error));
  }
}

json json_or_discarded(std::string_view text) {
  return json::parse(text, nullptr, /*allow_exceptions=*/false);
}
ordered_json ordered_json_or_discarded(std::string_view text) {
  return ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string json_text(const json& value, int indent) { return value.dump(indent); }
std::string json_text(const ordered_json& value, int indent) { return value.dump(indent); }

std::string json_text_in_utf8(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}
std::string json_text_in_utf8(const ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace qlora::io
