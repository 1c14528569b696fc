// --set key=value on the tree of a recipe, before it is read.
#pragma once

#include <string>

#include "recipes/yaml/problems.h"
#include "recipes/yaml/yaml_node.h"

namespace qlora::recipes {

// "optim.lr=1e-4" replaces or adds a value; "data.train[0].path=rows.jsonl" reaches into lists.
// What cannot be applied goes to `problems`.
void apply_override(const std::string& text, ProblemList& problems, Node& root);

}  // namespace qlora::recipes
