#include "recipes/models/trained_model.h"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <utility>

#include "base/arena_allocator.h"
#include "base/device.h"
#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/tokenizers/tokenizer_config.h"
#include "io/nameless_file.h"
#include "model/architecture.h"
#include "model/hub_cache.h"
#include "model/model_header.h"
#include "model/weight_source.h"
#include "quant/formats/gguf_weight.h"
#include "recipes/models/adapter_on_base.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/given_model.h"
#include "recipes/run_files/run_adapter.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/train_command.h"

namespace qlora::recipes {
namespace {

// Whether products of few rows take all of a GGUF file's blocks as they are. Other blocks are
// decoded once, since generation reads every weight for every token.
bool has_fast_blocks(const std::string& file) {
  const auto source = model::open_weights(model::resolve_model_path(file));
  return std::ranges::all_of(source->architecture().linear_modules(), [&](const auto& module) {
    const std::string packing = source->packing(module);
    return packing.empty() || quant::has_few_rows_kernel(packing);
  });
}

Recipe recipe_of(const ModelChoice& choice) {
  if (choice.run_dir.empty() == choice.model.empty()) {
    throw ConfigError("give either a run directory or --model");
  }
  if (!choice.checkpoint.empty() && choice.run_dir.empty())
    throw ConfigError(
        "--checkpoint is of a run's directory; with --model, name its adapter: --adapter RUN/" +
        choice.checkpoint + "/adapter");
  if (!choice.run_dir.empty()) {
    if (!choice.adapter.empty())
      throw ConfigError("--adapter goes with --model; a run directory has its own adapter");
    require_given_run(choice.run_dir);
    return with_saved_base(read_run_recipe(choice.run_dir));
  }
  require_given_model(choice.model, choice.adapter);
  Recipe recipe;
  recipe.model.path = choice.model;
  if (choice.model.ends_with(".gguf") && !(choice.few_rows && has_fast_blocks(choice.model)))
    recipe.quantization.method = "none";
  if (choice.adapter.empty()) return recipe;
  const data::ModelTemplates templates = templates_of_adapter(choice.adapter);
  recipe.data.chat_template = templates.chat;
  recipe.data.tool_use_template = templates.tool_use;
  if (const auto record = lora::read_adapter_base(choice.adapter)) {
    recipe.quantization = record->quantization;
    recipe.model.dtype = record->dtype;
    recipe.model.name = record->name;
  }
  return recipe;
}

// Where weights may lie on disk for a command that reads a run: not in the run. What the recipe
// names may be there for nobody but the one who trained it.
std::string offload_dir_of_reader(const std::string& named) {
  const bool is_usable = !named.empty() && access(named.c_str(), W_OK | X_OK) == 0;
  return is_usable ? named : io::scratch_directory();
}

std::string path_of_base(const ModelChoice& choice, const Recipe& recipe) {
  try {
    return model::resolve_model_path(recipe.model.path);
  } catch (const ConfigError& error) {
    if (choice.run_dir.empty()) throw;
    fail<ConfigError>("{}{}", error.what(), way_to_read_on_moved_base(choice.run_dir));
  }
}

// Tokenizer and template as the adapter (empty: there is none) was trained with them, which the
// choice may look at. A run has a tokenizer that is not the model's from the adapter that it began
// from, and its own adapters hold it.
ModelText text_of(const ModelChoice& choice, const Recipe& recipe, const std::string& adapter) {
  const std::string path = path_of_base(choice, recipe);
  const bool is_models = !choice.run_dir.empty() && recipe.lora.from_adapter.empty();
  ModelText text;
  ChosenTokenizer chosen = tokenizer_with(recipe.model.path, is_models ? "" : adapter);
  text.tokenizer = std::move(chosen.tokenizer);
  text.is_adapters_tokenizer = chosen.is_adapters;
  text.chat_template = data::choose_chat_template(recipe.data, *text.tokenizer);
  if (choice.before_loading)
    choice.before_loading(recipe, {*text.tokenizer, text.chat_template.get(),
                                   model::read_model_header(path).architecture});
  return text;
}

TrainedModel base_of(const ModelChoice& choice, Recipe recipe, const std::string& adapter) {
  TrainedModel trained;
  trained.recipe = std::move(recipe);
  if (!choice.compute_dtype.empty()) trained.recipe.train.compute_dtype = choice.compute_dtype;
  trained.recipe.model.offload_dir = offload_dir_of_reader(trained.recipe.model.offload_dir);
  ModelText text = text_of(choice, trained.recipe, adapter);
  use_arena_for_cpu_tensors();
  grow_gpu_segments();
  set_num_threads(choice.threads);
  trained.base = load_base(trained.recipe, device_from_string(choice.device),
                           choice.run_dir.empty() ? BaseUse::kForAdapter : BaseUse::kOfRun,
                           std::move(text), std::make_shared<distributed::Group>());
  trained.sources = {trained.base.path};
  if (!choice.run_dir.empty()) {  // which may have saved a quantized base of its own
    trained.run_recipe = read_run_recipe(choice.run_dir);
    trained.sources.push_back(trained.run_recipe->model.path);
  }
  return trained;
}

// What `take` makes of the adapter. A run that goes on removes old checkpoints: where `adapter` is
// one of these by now, and nobody named it, it becomes that of the newest one, and `take` has that.
template <typename Take>
auto of_adapter(const ModelChoice& choice, std::string& adapter, const Take& take) {
  while (true) {
    try {
      return take(adapter);
    } catch (const std::exception&) {
      if (choice.run_dir.empty() || !choice.checkpoint.empty() || std::filesystem::exists(adapter))
        throw;
    }
    adapter = adapter_of_run(choice.run_dir);
  }
}

}  // namespace

std::string base_path_of(const ModelChoice& choice) {
  return path_of_base(choice, recipe_of(choice));
}

TrainedModel open_base(const ModelChoice& choice) {
  return base_of(choice, recipe_of(choice), choice.adapter);
}

void require_base_of(const std::string& directory, const ModelChoice& choice,
                     TrainedModel& trained) {
  if (!choice.any_base) require_same_base(directory, trained.base);
  adopt_base_origin(directory, trained.base);
  const auto record = lora::read_adapter_base(directory);
  trained.base.record.compute_dtype = record ? record->compute_dtype : "";  // not this machine's
  // A name without its place, as exports have it, may be that of something else here.
  if (record && std::filesystem::path(record->path).is_absolute())
    trained.sources.push_back(record->path);
}

TrainedModel open_model(const ModelChoice& choice) {
  Recipe recipe = recipe_of(choice);
  std::string adapter =
      choice.run_dir.empty() ? choice.adapter : adapter_of_run(choice.run_dir, choice.checkpoint);
  if (adapter.empty()) return base_of(choice, std::move(recipe), "");
  path_of_base(choice, recipe);  // where it lies elsewhere now, that is what is wrong
  lora::FittedAdapter fitted = of_adapter(choice, adapter, [&](const std::string& directory) {
    return fit_adapter(directory, recipe.model.path);
  });
  fitted.options.dtype = recipe.lora.dtype;  // the file does not say it
  if (choice.run_dir.empty()) {
    if (!lora::initial_product_of(adapter).empty() && choice.model.ends_with(".gguf"))
      recipe.quantization.method = "none";
    recipe.lora = fitted.options;
    recipe.lora.from_adapter = adapter;
  }
  TrainedModel trained = base_of(choice, std::move(recipe), adapter);
  of_adapter(choice, adapter,
             [&](const std::string& directory) { require_base_of(directory, choice, trained); });
  if (choice.run_dir.empty()) trained.chosen_adapters = {adapter};
  fitted.options.from_adapter = trained.recipe.lora.from_adapter;
  trained.recipe.lora = fitted.options;
  model::CausalLm& model = *trained.base.model;
  trained.adapters = std::make_unique<lora::AdapterSet>(trained.recipe.lora, model.parts(),
                                                        model.compute_dtype(), 0);
  of_adapter(choice, adapter, [&](const std::string& directory) {
    lora::read_adapter_tensors(directory, *trained.adapters, fitted.passed_over);
    if (!choice.run_dir.empty()) trained.step = step_of_adapter(directory);
  });
  return trained;
}

}  // namespace qlora::recipes
