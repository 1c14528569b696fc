#include "recipes/options_from_files.h"

#include <algorithm>

#include "base/error.h"
#include "data/tokenizer.h"
#include "model/expert_targets.h"
#include "model/hub_cache.h"
#include "model/model_header.h"
#include "recipes/models/adapter_on_base.h"
#include "recipes/models/base_model.h"

namespace qlora::recipes {

void adopt_adapter_options(Recipe& recipe) {
  if (recipe.lora.from_adapter.empty()) return;
  const bool has_model = model::find_model(recipe.model.path).has_value();
  lora::LoraOptions adopted =
      fit_adapter(recipe.lora.from_adapter,
                  has_model ? recipe.model.path : with_saved_base(recipe).model.path)
          .options;
  adopted.from_adapter = recipe.lora.from_adapter;
  adopted.init = recipe.lora.init;
  adopted.plus_lr_ratio = recipe.lora.plus_lr_ratio;
  adopted.dtype = recipe.lora.dtype;
  recipe.lora = adopted;
}

void name_trained_tokens(Recipe& recipe) {
  lora::LoraOptions& lora = recipe.lora;
  if (lora.trainable_tokens.empty()) return;
  const auto tokenizer = data::load_tokenizer(model::resolve_model_path(recipe.model.path));
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
