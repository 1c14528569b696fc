#include "recipes/ready_recipes.h"

#include <fmt/format.h>

#include "base/error.h"

namespace qlora::recipes {

std::string ReadyRecipe::summary() const {
  const std::string line = text.substr(0, text.find('\n'));
  return line.starts_with("# ") ? line.substr(2) : line;
}

const ReadyRecipe& ready_recipe(const std::string& name) {
  std::string names;
  for (const ReadyRecipe& recipe : ready_recipes()) {
    if (recipe.name == name) return recipe;
    names += (names.empty() ? "" : ", ") + recipe.name;
  }
  fail<ConfigError>("there is no ready recipe '{}'; there are {}", name, names);
}

}  // namespace qlora::recipes
