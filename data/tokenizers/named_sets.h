// Sets of characters that Oniguruma has names for, \p{Letter} and [[:alnum:]], in the regular
// expressions of pre-tokenizers. What one property says whose value stand-ins keep (a category,
// Alphabetic; stand_ins.h) is spelled with that; unions and complements of such are ranges by the
// program's tables. Scripts are in script_property.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qlora::data {

// The inside of a class, "\p{L}" or "\x{9}-\x{9}\x{20}-\x{20}...". Nothing: what the name means
// does not follow from the program's tables.
std::optional<std::string> property_set(std::string_view plain_name, bool is_negated);
std::optional<std::string> posix_set(std::string_view name, bool is_negated);

}  // namespace qlora::data
