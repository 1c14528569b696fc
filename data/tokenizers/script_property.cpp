#include "data/tokenizers/script_property.h"

#include <vector>

#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {
namespace {

using unicode_tables::kScriptNames;
using unicode_tables::kScripts;

// What of a name counts.
std::string plain(std::string_view name) {
  std::string letters;
  for (const char c : name) {
    if (c == ' ' || c == '_' || c == '-') continue;
    letters += static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  }
  return letters;
}

std::optional<uint8_t> script_named(std::string_view wanted) {
  for (size_t script = 0; script < kScriptNames.size(); ++script)
    if (wanted == plain(kScriptNames[script].name) || wanted == plain(kScriptNames[script].alias))
      return static_cast<uint8_t>(script);
  return std::nullopt;
}

}  // namespace

std::optional<PropertyEscape> property_escape(std::string_view text) {
  if (!text.starts_with("\\p{") && !text.starts_with("\\P{")) return std::nullopt;
  const size_t end = text.find('}');
  if (end == std::string_view::npos) return std::nullopt;
  std::string_view name = text.substr(3, end - 3);
  PropertyEscape escape = {.name = {}, .is_negated = text[1] == 'P', .size = end + 1};
  if (name.starts_with('^')) {
    escape.is_negated = !escape.is_negated;
    name.remove_prefix(1);
  }
  escape.name = plain(name);
  return escape;
}

std::optional<ScriptEscape> script_escape(std::string_view text) {
  const auto escape = property_escape(text);
  if (!escape) return std::nullopt;
  const auto script = script_named(escape->name);
  if (!script) return std::nullopt;
  return ScriptEscape{.script = *script, .is_negated = escape->is_negated, .size = escape->size};
}

CodeSet script_set(const ScriptEscape& escape) {
  std::vector<CodeSet::Range> found;
  for (size_t run = 0; run < kScripts.size(); ++run) {
    const char32_t last = run + 1 < kScripts.size() ? kScripts[run + 1].first - 1 : CodeSet::kLast;
    if ((kScripts[run].value == escape.script) != escape.is_negated)
      found.push_back({kScripts[run].first, last});
  }
  return CodeSet(std::move(found));
}

}  // namespace qlora::data
