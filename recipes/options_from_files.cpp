#include "recipes/options_from_files.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/warn_once.h"
#include "data/tokenizer.h"
#include "data/tokenizers/tokenizer_config.h"
#include "lora/adapter_file.h"
#include "model/expert_targets.h"
#include "model/hub_cache.h"
#include "model/model_header.h"
#include "recipes/given_adapter.h"
#include "recipes/models/adapter_on_base.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/base_model.h"
#include "recipes/run_files/run_directory.h"

namespace qlora::recipes {
namespace {

// What the run in output.dir made of the same adapter, if it can go on without it.
std::optional<lora::LoraOptions> options_as_begun(const Recipe& recipe) {
  const std::optional<Recipe> begun = begun_run(recipe);
  if (!begun || begun->lora.from_adapter != recipe.lora.from_adapter) return std::nullopt;
  return begun->lora;
}

data::ModelTemplates templates_of_model(const Recipe& recipe) {
  const auto path = model::find_model(recipe.model.path);
  if (!path) return {};
  if (std::filesystem::is_directory(*path)) return data::chat_templates_in(*path);
  const auto tokenizer = data::load_tokenizer(*path);
  return {tokenizer->chat_template(), tokenizer->tool_use_template()};
}

}  // namespace

void adopt_adapter_options(Recipe& recipe) {
  if (recipe.lora.from_adapter.empty()) return;
  const bool has_model = model::find_model(recipe.model.path).has_value();
  const std::string model_path = has_model ? recipe.model.path : with_saved_base(recipe).model.path;
  const std::optional<lora::LoraOptions> begun = options_as_begun(recipe);
  lora::LoraOptions adopted = begun && !has_given_adapter(recipe)
                                  ? *begun
                                  : fit_adapter(recipe.lora.from_adapter, model_path).options;
  adopted.init = begun ? begun->init : lora::read_adapter_init(recipe.lora.from_adapter);
  require_form_of_adapter(recipe, adopted, model_path);
  adopted.from_adapter = recipe.lora.from_adapter;
  adopted.init = recipe.lora.init;
  if (recipe.places.contains("lora.dropout")) adopted.dropout = recipe.lora.dropout;
  adopted.plus_lr_ratio = recipe.lora.plus_lr_ratio;
  adopted.dtype = recipe.lora.dtype;
  recipe.lora = adopted;
  adopt_chat_template(recipe);
}

void adopt_chat_template(Recipe& recipe) {
  const std::string& adapter = recipe.lora.from_adapter;
  if (adapter.empty() || !recipe.data.chat_template.empty() ||
      recipe.places.contains("data.chat_template") || recipe.data.trains_alpaca_prompts())
    return;
  const std::optional<Recipe> begun = begun_run(recipe);
  if (begun && begun->lora.from_adapter == adapter) {
    recipe.data.chat_template = begun->data.chat_template;
    return;
  }
  const data::ModelTemplates templates = templates_of_adapter(adapter);
  if (templates.chat.empty() || templates == templates_of_model(recipe)) return;
  recipe.data.chat_template = templates.chat;
  log::warning_once(
      "lora.from_adapter: conversations are put together by the chat template of {}, which is not "
      "the model's; data.chat_template names another one (\"\": the model's)",
      adapter);
  if (!templates.tool_use.empty())
    log::warning_once(
        "lora.from_adapter: {} has another chat template for rows with tools, which is not used: "
        "the one for all rows stands for both",
        adapter);
}

void name_trained_tokens(Recipe& recipe) {
  lora::LoraOptions& lora = recipe.lora;
  if (lora.trainable_tokens.empty()) return;
  const auto tokenizer = tokenizer_of(recipe).tokenizer;
  std::vector<int64_t>& ids = lora.trainable_token_indices["embed_tokens"];
  for (const std::string& token : lora.trainable_tokens) {
    const auto id = tokenizer->token_to_id(token);
    if (!id)
      fail<ConfigError>("lora.trainable_tokens: '{}' is no token of {}", token, recipe.model.path);
    if (std::ranges::find(ids, *id) == ids.end()) ids.push_back(*id);
  }
  lora.trainable_tokens.clear();
}

void name_expert_targets(Recipe& recipe) {
  if (!recipe.lora.from_adapter.empty() || !model::find_model(recipe.model.path)) return;
  model::resolve_expert_targets(model::read_model_header(recipe.model.path).architecture,
                                recipe.lora);
}

}  // namespace qlora::recipes
