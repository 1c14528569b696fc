// Data sets that a command line describes with the keys that they have in a recipe.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace qlora::recipes {

// The option of a command line for a key of a dataset: "--max-rows".
std::string dataset_option(const std::string& key);

// The data set in `path`: its rows as those of `start` (format, fields, separator, system), with
// each key of `values` ("fields") replaced by its value in YAML ("{instruction: question}") unless
// that is empty. A text ("system") is taken as it stands; in a separator \n, \t and \\ are a line
// break, a tab and a backslash, and double quotes around it are left out. With another format the
// rest of `start` means nothing and is left out. ConfigError that names the option ("--fields") if
// a value does not fit.
data::DatasetOptions dataset_choice(const std::string& path, data::DatasetOptions start,
                                    const std::map<std::string, std::string>& values);

// --set of commands that read rows: "data.chat_template=chatml" replaces a key of the data section.
// ConfigError if a key is of another section, unknown, or its value does not fit.
void set_data_keys(const std::vector<std::string>& overrides, Recipe& recipe);

}  // namespace qlora::recipes
