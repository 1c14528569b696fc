#include "recipes/report/page.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/replaceable.h"
#include "recipes/output_place.h"

namespace qlora::recipes {
namespace {

// Of every page (page/page.html), by which it is known.
constexpr std::string_view kFirstLines = "<!doctype html>\n<!-- made by qlora -->\n";

// JSON that HTML takes for text alone: <, > and & stand in strings only, and are written as \u00XX.
std::string json_for_html(const nlohmann::ordered_json& data) {
  std::string text;
  for (const char c : io::json_text_in_utf8(data)) {
    if (c == '<')
      text += "\\u003c";
    else if (c == '>')
      text += "\\u003e";
    else if (c == '&')
      text += "\\u0026";
    else
      text += c;
  }
  return text;
}

}  // namespace

std::string page_with(const nlohmann::ordered_json& data) {
  const std::string_view frame = page_parts().at("page.html");
  std::string page;
  // In one pass: what is put in for a {{name}} is not looked at again.
  size_t at = 0;
  for (size_t open; (open = frame.find("{{", at)) != std::string_view::npos;) {
    const size_t close = frame.find("}}", open);
    const std::string name(frame.substr(open + 2, close - open - 2));
    page += frame.substr(at, open - at);
    page += name == "data" ? json_for_html(data) : page_parts().at(name);
    at = close + 2;
  }
  return page += frame.substr(at);
}

void require_page_file(const std::string& path) {
  io::require_replaceable(path, kFirstLines, "page");
  require_output_file("--html", path);
}

void write_page(const std::string& path, const nlohmann::ordered_json& data) {
  require_page_file(path);
  io::write_file_atomically(path, page_with(data));
}

}  // namespace qlora::recipes
