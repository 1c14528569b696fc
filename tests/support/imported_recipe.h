// A file of another tool that is given as text, as a recipe, and what was told of its keys.
#pragma once

#include <string>
#include <vector>

#include "recipes/import/import_recipe.h"

namespace qlora::test {

inline recipes::ImportedRecipe imported(const std::string& text, const std::string& from = "") {
  return recipes::import_recipe_text(text, "theirs.yaml", "/base", from);
}

// Of the file's key; null if nothing was told of it.
inline const recipes::Outcome* outcome_of(const recipes::ImportedRecipe& recipe,
                                          const std::string& key) {
  for (const recipes::Outcome& outcome : recipe.outcomes)
    if (outcome.key == key) return &outcome;
  return nullptr;
}

// Where a key of the file went, or why it did not: "data.train_on", "refused: no noise is added
// ...".
inline std::string fate_of(const recipes::ImportedRecipe& recipe, const std::string& key) {
  const recipes::Outcome* outcome = outcome_of(recipe, key);
  if (outcome == nullptr) return "nothing was told of it";
  switch (outcome->fate) {
    case recipes::Fate::kMapped:
      return outcome->here;
    case recipes::Fate::kWithoutEffect:
      return "without effect: " + outcome->reason;
    case recipes::Fate::kRefused:
      return "refused: " + outcome->reason;
    default:
      return "unknown";
  }
}

// In the order of the file.
inline std::vector<std::string> keys_with(const recipes::ImportedRecipe& recipe,
                                          recipes::Fate fate) {
  std::vector<std::string> keys;
  for (const recipes::Outcome& outcome : recipe.outcomes)
    if (outcome.fate == fate) keys.push_back(outcome.key);
  return keys;
}

}  // namespace qlora::test
