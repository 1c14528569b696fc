// Cutting, counting and replacing in strings, as Python's str does.
#pragma once

#include <string_view>
#include <vector>

#include "data/jinja/value.h"

namespace qlora::data::jinja {

// str.split(separator, limit), or rsplit; a negative limit is none.
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator,
                                       int64_t limit, bool from_right);
// The same with runs of white space as separators, and none at the ends.
std::vector<std::string_view> split_at_space(std::string_view text, int64_t limit, bool from_right);

// str.count
size_t count_text(std::string_view text, std::string_view wanted);

// str.replace on any values that are strings. Failure if the result is too long.
Value replace_in(Runtime& runtime, const Value& text, const Value& from, const Value& to,
                 int64_t limit);

}  // namespace qlora::data::jinja
