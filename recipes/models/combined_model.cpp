#include "recipes/models/combined_model.h"

#include "base/error.h"
#include "base/log.h"
#include "data/chat_renderer.h"
#include "data/tokenizers/token_difference.h"
#include "recipes/models/adapter_text.h"

namespace qlora::recipes {
namespace {

// The tokenizer that all adapters have, which the base got of the first; its own where they do not
// agree.
void take_tokenizer(const std::vector<std::string>& adapters, BaseModel& base) {
  for (const std::string& directory : adapters) {
    const auto other = tokenizer_with(base.path, directory);
    const std::string difference = data::token_difference(*other.tokenizer, *base.tokenizer, true);
    if (difference.empty()) continue;
    log::warning("{} and {} have different tokenizers; the combined adapter gets the base's",
                 adapters.front(), directory);
    base.tokenizer = data::load_tokenizer(base.path);
    base.has_adapters_tokenizer = false;
    return;
  }
}

// The chat templates that all adapters bring; the base's where they bring none or do not agree.
void take_chat_templates(const std::vector<std::string>& adapters, BaseModel& base) {
  data::ModelTemplates common = templates_of_adapter(adapters.front());
  for (const std::string& directory : adapters) {
    if (templates_of_adapter(directory) == common) continue;
    log::warning("{} and {} have different chat templates; the combined adapter gets the base's",
                 adapters.front(), directory);
    common = {};
    break;
  }
  data::DataOptions options;
  options.chat_template = common.chat;
  options.tool_use_template = common.tool_use;
  base.chat_template = data::choose_chat_template(options, *base.tokenizer);
}

}  // namespace

TrainedModel open_combined_model(const ModelChoice& choice,
                                 const std::vector<std::string>& adapters,
                                 const lora::CombineOptions& options) {
  options.validate(adapters.size());
  TrainedModel trained = open_base(choice);
  model::CausalLm& model = *trained.base.model;
  std::vector<lora::PlainAdapter> read;
  for (const std::string& directory : adapters) {
    require_base_of(directory, choice, trained);
    if (adapter_holds_part_of(trained.base)) {
      const std::string& init = trained.base.record.init;
      fail<ConfigError>(
          "--combine: {} started from a part of the base's weights{}, which a weight would scale "
          "with it; combine adapters of an unchanged base",
          directory, init.empty() ? "" : " (" + init + ")");
    }
    read.push_back(lora::read_plain_adapter(directory, model.groups()));
  }
  take_tokenizer(adapters, trained.base);
  take_chat_templates(adapters, trained.base);
  lora::CombinedAdapter combined = lora::combine_adapters(read, options);
  trained.recipe.lora = combined.options;
  trained.chosen_adapters = adapters;
  trained.combination = options;
  lora::TrainableParts layers = model.groups();
  layers.has_encoder = model.architecture().has_encoder();
  trained.adapters = std::make_unique<lora::AdapterSet>(combined.options, layers,
                                                        model.compute_dtype(), 0, combined.factors);
  return trained;
}

}  // namespace qlora::recipes
