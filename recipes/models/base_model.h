// A base model with what belongs to it: tokenizer, chat template, and the record by which an
// adapter knows it again.
#pragma once

#include <memory>
#include <string>

#include "data/chat_template.h"
#include "data/embedded_tokens.h"
#include "data/tokenizer.h"
#include "distributed/group.h"
#include "lora/adapter_file.h"
#include "model/causal_lm.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

struct BaseModel {
  std::string path;  // of the weights: a directory or a .gguf file
  std::unique_ptr<data::Tokenizer> tokenizer;
  bool has_adapters_tokenizer = false;                // one that differs from the model's
  std::unique_ptr<data::ChatTemplate> chat_template;  // nullptr: the model has none
  std::unique_ptr<model::CausalLm> model;
  lora::AdapterBase record;
  lora::GivenFactors factors;  // where the adapter's start was found while loading
  bool changed = false;        // the weights are others than those of `path`
  std::string init_table;      // JSON: what the initialisation did to each layer
};

// How texts become ids of a model: what is known of it before its weights are read.
struct ModelText {
  std::unique_ptr<data::Tokenizer> tokenizer;
  bool is_adapters_tokenizer = false;                 // one that differs from the model's
  std::unique_ptr<data::ChatTemplate> chat_template;  // nullptr: the model has none
  data::ModelTokens tokens;
};

// Whether a base is read for an adapter that is yet to be fitted to it, or as a run had it, which
// then lies in the run's directory if it was changed.
enum class BaseUse { kForAdapter, kOfRun };

// Quantized as the recipe says, on `device`; the initialisations that need the original weights run
// on the way, unless the adapter comes from elsewhere: then the product that it began with is taken
// off (adapter_on_base.h), for kForAdapter. ConfigError, FormatError, IoError.
BaseModel load_base(const Recipe& recipe, c10::Device device, BaseUse use = BaseUse::kForAdapter);
// The same with tokenizer and template that were read already, by each of the ranks of a run. What
// model.device_map has them keep together is on the device where there is one.
BaseModel load_base(const Recipe& recipe, c10::Device device, BaseUse use, ModelText text,
                    const std::shared_ptr<distributed::Group>& ranks);

// Whether an initialisation changed the base that was written there (save_base).
bool is_changed_base(const std::string& directory);

// Takes over what the adapter in `directory` records of how its base came to be: the init, and of a
// base that a run wrote the model that it was made from. Runs that went on with older versions
// recorded the init "default" whatever it was: on a changed base it is that of the run's recipe, or
// empty.
void adopt_base_origin(const std::string& directory, BaseModel& base);

// Whether an adapter on this base holds a part of the weights that the model had before (LoftQ,
// PiSSA, OLoRA): it then belongs to this base alone.
bool adapter_holds_part_of(const BaseModel& base);

// The recipe of a run that wrote a base of its own (save_base): it is read from there and taken as
// it is, and Recipe::made_from is the model that it was before, Recipe::made_with how it was
// quantized: the records of adapters say that, as those of the run that wrote it. Any other recipe
// comes back as it was.
Recipe with_saved_base(Recipe recipe);
// Writes `base` in the run directory, if the initialisation changed it or output.save_base asks for
// it. Another base that lies there is set aside (run_files/set_aside.h). The adapter's record then
// names that directory, where it was changed, and the model that it was made from.
void save_base(const Recipe& recipe, BaseModel& base);

}  // namespace qlora::recipes
