#include "recipes/models/original_base.h"

#include "base/error.h"
#include "model/hub_cache.h"
#include "recipes/run_files/run_directory.h"

namespace qlora::recipes {
namespace {

void require_model(const std::string& path) {
  try {
    model::resolve_model_path(path);
  } catch (const Error& error) {
    fail<ConfigError>(
        "--compare-base: the adapter began with a part of the base's weights, so the original has "
        "to be compared with it, which cannot be found ({}); put it back, or evaluate without "
        "--compare-base",
        error.what());
  }
}

}  // namespace

Recipe recipe_of_original_base(const ModelChoice& choice, const TrainedModel& trained) {
  Recipe recipe = choice.run_dir.empty() ? trained.recipe : read_run_recipe(choice.run_dir);
  recipe.train.compute_dtype = trained.recipe.train.compute_dtype;
  recipe.lora.init = "default";
  recipe.lora.from_adapter.clear();
  require_model(recipe.model.path);
  if (is_changed_base(model::resolve_model_path(recipe.model.path))) {
    fail<ConfigError>(
        "--compare-base: {} is a base of which LoftQ, PiSSA or OLoRA moved a part into the "
        "adapter, no model to compare with; give the run's directory in place of --model, or "
        "evaluate the original by itself with --model",
        recipe.model.path);
  }
  return recipe;
}

}  // namespace qlora::recipes
