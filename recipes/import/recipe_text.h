// The text of a recipe that an import has drafted.
#pragma once

#include <string>
#include <vector>

#include "recipes/import/draft.h"

namespace qlora::recipes {

// YAML in the order of the reference: each value with the key of `tool` that it came from, what
// must be filled in as commented lines, and first what was not taken over from `source`.
std::string recipe_text(const Draft& draft, const std::string& tool, const std::string& source);

// "optim.schedule: linear", for every value that is a default of `tool`.
std::vector<std::string> default_lines(const Draft& draft, const std::string& tool);

}  // namespace qlora::recipes
