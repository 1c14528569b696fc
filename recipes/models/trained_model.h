// A model to use: of a run, or a base with or without an adapter. What evaluate, generate, chat and
// export work on.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lora/attach.h"
#include "lora/combine_adapters.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// What belongs to a base and is known before its weights are read.
struct BaseText {
  const data::Tokenizer& tokenizer;
  const data::ChatTemplate* chat_template;  // nullptr: the model has none
  const model::Architecture& architecture;
};

struct ModelChoice {
  std::string run_dir;         // or
  std::string model, adapter;  // adapter may be empty
  std::string device = "auto";
  int threads = 0;              // 0: all cores
  std::string compute_dtype;    // empty: the run's, or auto
  bool any_base = false;        // take the adapter though it was trained on another base
  bool few_rows = false;        // it will answer token by token
  std::string checkpoint = {};  // of the run, as adapter_of_run() takes it; empty: its result
  // Called before the base's weights are read, with what is known of it by then: what it throws is
  // passed on. Empty: nothing is asked.
  std::function<void(const Recipe&, const BaseText&)> before_loading = {};
};

struct TrainedModel {
  Recipe
      recipe;  // the run's; for a chosen model only the sections model, quantization and lora hold
  std::optional<Recipe> run_recipe = {};  // of a run: as its directory has it
  std::optional<int64_t> step = {};       // of a run: what the adapter is of, if not the last
  BaseModel base;
  std::unique_ptr<lora::AdapterSet> adapters;  // nullptr: the base alone
  // Where the base's weights may lie unquantized: where they were read from now, as the run began,
  // and as the adapter was trained. Paths that may be gone.
  std::vector<std::string> sources;
  // Of a chosen model: the directories of its adapters, and how several became one.
  std::vector<std::string> chosen_adapters = {};
  std::optional<lora::CombineOptions> combination = {};
};

// Where the weights of a choice's base lie: a directory or a .gguf file. ConfigError if the choice
// is not one of the two kinds, or they are not there.
std::string base_path_of(const ModelChoice& choice);
// The base of a choice, as the run or the adapter records it, without the adapter. ConfigError if
// the choice is not one of the two kinds.
TrainedModel open_base(const ModelChoice& choice);
// Takes over what the adapter in `directory` records of its base. ConfigError if it was trained on
// another one, unless the choice takes any.
void require_base_of(const std::string& directory, const ModelChoice& choice,
                     TrainedModel& trained);

// The base is rebuilt as the run or the adapter records it. ConfigError if the choice is not one of
// the two kinds, or the adapter belongs to another base.
TrainedModel open_model(const ModelChoice& choice);

}  // namespace qlora::recipes
