// Property Script in the regular expressions of pre-tokenizers: \p{Han}, \P{Thai}, [\p{Hiragana}].
// Which characters a script has is decided by the program's tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "data/tokenizers/code_set.h"

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

// The characters of the script, or all others.
CodeSet script_set(const ScriptEscape& escape);

}  // namespace qlora::data
