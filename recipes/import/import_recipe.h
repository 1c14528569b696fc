// `qlora import`: the file of another fine-tuning tool as a recipe. Every key of the file is a key
// of the recipe, or is told why it is not.
#pragma once

#include <string>
#include <vector>

#include "recipes/import/draft.h"

namespace qlora::recipes {

struct ImportedRecipe {
  std::string tool;               // "Axolotl"
  std::string text;               // the recipe, YAML, each value with the key it came from
  std::vector<Outcome> outcomes;  // every key of the file, in its order
  // "optim.schedule: linear": what holds in the other tool where the file says nothing, and is
  // written because it holds otherwise here.
  std::vector<std::string> defaults;
  std::vector<std::string> warnings;
  // What must be filled in: "data.train: yahma/alpaca-cleaned is a data set of the Hub; ...".
  // Empty: the recipe can be read as it is.
  std::vector<std::string> missing;
};

// `from` names the tool as --from does (axolotl, llama-factory, torchtune, trl, peft); empty: its
// keys tell. ConfigError if the file is no YAML or JSON map, is a recipe of this program, or of no
// tool that is known; IoError if it cannot be read.
ImportedRecipe import_recipe(const std::string& path, const std::string& from = "");

// The same from text; `directory` is where the files that it names are looked for.
ImportedRecipe import_recipe_text(const std::string& text, const std::string& source,
                                  const std::string& directory, const std::string& from = "");

// The report of an import for people: what was not taken over and why, line by line.
std::string to_text(const ImportedRecipe& imported);

}  // namespace qlora::recipes
