// --set key=value on the tree of a recipe, before it is read.
#pragma once

#include <string>
#include <vector>

#include "recipes/yaml/problems.h"
#include "recipes/yaml/yaml_node.h"

namespace qlora::recipes {

// "optim.lr=1e-4" replaces or adds a value; "data.train[0].path=rows.jsonl" reaches into lists.
// What cannot be applied goes to `problems`.
void apply_override(const std::string& text, ProblemList& problems, Node& root);

// Of keys that exclude each other the one that an override gave counts: takes the other out, where
// it stands in the file and would act. Gives a sentence for each that it took out. Both given by
// overrides, or both by the file, stay for the checks of the sections to refuse.
std::vector<std::string> leave_out_replaced(const std::vector<std::string>& overrides, Node& root);

}  // namespace qlora::recipes
