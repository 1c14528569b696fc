// Sets of characters that Oniguruma has names for, \p{Letter} and [[:alnum:]], or escapes of one
// letter, in the regular expressions of pre-tokenizers; all by the program's tables. Scripts are in
// script_property.h.
#pragma once

#include <optional>
#include <string_view>

#include "data/tokenizers/code_set.h"

namespace qlora::data {

// Nothing: what the name means does not follow from the program's tables.
std::optional<CodeSet> property_set(std::string_view plain_name);
std::optional<CodeSet> posix_set(std::string_view name);

// \s \w \d \h and their complements. In a class \w is that of Unicode Technical Standard 18;
// outside of one it takes Latin-1's numbers as well.
std::optional<CodeSet> escape_set(char letter, bool in_class);

}  // namespace qlora::data
