// Property Script in the regular expressions of pre-tokenizers: \p{Han}, \P{Thai}, [\p{Hiragana}].
// Which characters a script has is decided by the program's tables, so that it does not depend on
// the Unicode of the installed PCRE2, for which the same notation means Script_Extensions besides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qlora::data {

struct PropertyEscape {
  std::string name;  // without blanks, '_' and '-', in lower case: they do not count
  bool is_negated = false;
  size_t size = 0;  // bytes of the notation
};

// What `text` begins with, if that is \p{NAME}, \P{NAME} or \p{^NAME}.
std::optional<PropertyEscape> property_escape(std::string_view text);

struct ScriptEscape {
  uint8_t script = 0;  // an index into unicode_tables::kScriptNames
  bool is_negated = false;
  size_t size = 0;  // bytes of the notation
};

// The same with a script's name or its short one ("Hani").
std::optional<ScriptEscape> script_escape(std::string_view text);

// The characters of the script, or all others, as the inside of a class: "\x{E01}-\x{E3A}...".
std::string script_ranges(const ScriptEscape& escape);

}  // namespace qlora::data
