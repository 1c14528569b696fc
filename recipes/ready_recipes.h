// Recipes that come with the program: the files of recipes/ready, built in.
#pragma once

#include <string>
#include <vector>

namespace qlora::recipes {

struct ReadyRecipe {
  std::string name;  // "llama-8b-24gb"
  std::string text;  // YAML; its first line is a comment that says what it is for
  std::string summary() const;
};

const std::vector<ReadyRecipe>& ready_recipes();  // by name
// ConfigError that lists the names.
const ReadyRecipe& ready_recipe(const std::string& name);

}  // namespace qlora::recipes
