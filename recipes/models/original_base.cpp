#include "recipes/models/original_base.h"

#include <fmt/format.h>

#include "base/error.h"
#include "lora/weight_init.h"
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

// The model before any part of it was moved; empty if it is not known, or gone.
std::string original_path(const ModelChoice& choice) {
  const std::string path =
      choice.run_dir.empty() ? choice.model : read_run_recipe(choice.run_dir).model.path;
  const auto found = model::find_model(path);
  return found && !is_changed_base(*found) ? path : "";
}

}  // namespace

Recipe recipe_of_original_base(const ModelChoice& choice, const TrainedModel& trained) {
  Recipe recipe = choice.run_dir.empty() ? trained.recipe : read_run_recipe(choice.run_dir);
  recipe.train.compute_dtype = trained.recipe.train.compute_dtype;
  recipe.model.offload_dir = trained.recipe.model.offload_dir;
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

std::string changed_base_sentence(const ModelChoice& choice, const TrainedModel& trained) {
  if (!trained.base.changed && !is_changed_base(trained.base.path)) return "";
  const std::string& init = trained.base.record.init;
  const std::string original = original_path(choice);
  return fmt::format(
      "what answers without the adapter is not the original model but the base that it was trained "
      "on: {} moved a part of the weights into the adapter{}",
      lora::init_changes_base(init) ? "the initialisation " + init : "its initialisation",
      original.empty() ? "" : "; qlora generate --model " + original + " asks the original");
}

}  // namespace qlora::recipes
