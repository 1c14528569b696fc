// Keys of files that other programs write. A reader lists what it reads and what it knows to change
// nothing; whatever else is set there could change the result, and is named in a warning.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>

#include "io/json.h"

namespace qlora::io {

// One warning, once a file, that names the members of `object` which are set (not null, no empty
// text or list) and stand in none of the lists.
void warn_of_other_keys(const JsonNode& object,
                        std::initializer_list<std::span<const std::string_view>> known);

}  // namespace qlora::io
