// What can be known to be wrong with a run before its weights are read: the files that its recipe
// names, the model's header, and the first rows of its data.
#pragma once

#include <optional>

#include "recipes/models/base_model.h"
#include "recipes/recipe.h"
#include "recipes/yaml/problems.h"
#include "trainer/train_state.h"

namespace qlora::recipes {

// Looks at the model's files and header, tokenizer and chat template, quantization and targets, and
// at every dataset with its first rows, and adds what is wrong to `problems`, each at its key.
// Parts of the recipe that have a problem already are passed over. Gives what was read of the
// model's text: no tokenizer where it is wrong, or model.path is a config.json alone.
ModelText look_before_loading(const Recipe& recipe, ProblemList& problems);

// The same for a run, of a recipe without problems: the model needs more than a config.json.
// ConfigError with a line for each problem that is found. `begun` is the state of a run that goes
// on: entries that mean nothing in the model (lora.exclude_modules, lora.layers_to_transform,
// lora.rank_pattern, lora.alpha_pattern, quantization.skip_modules) stay what they were when it
// began, perhaps with a version that took them, and are only told of; whether train.on_extend is
// needed is asked where train.max_steps says how long the run is to be. `checkpoint` is where it
// goes on from, whose adapter says which tokenizer the run began with.
ModelText check_before_loading(const Recipe& recipe,
                               const std::optional<trainer::TrainState>& begun = std::nullopt,
                               const std::string& checkpoint = "");

// The same for a plan, to which a config.json is enough; the files of rows may be missing, too, if
// there is no more of the model.
void check_before_planning(const Recipe& recipe);

// Puts in what the recipe leaves to other files: options of lora.from_adapter, ids of
// lora.trainable_tokens. ConfigError with a line for all that is wrong if that is not possible.
void complete_recipe(Recipe& recipe);

}  // namespace qlora::recipes
