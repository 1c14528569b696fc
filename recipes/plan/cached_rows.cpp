#include "recipes/plan/cached_rows.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/cache/cached_dataset.h"
#include "data/chat_renderer.h"
#include "model/hub_cache.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/model_tokens.h"

namespace qlora::recipes {

std::optional<CachedRows> cached_rows(const Recipe& recipe,
                                      const model::Architecture& architecture) {
  std::vector<data::DatasetOptions> sets = recipe.data.train;
  sets.insert(sets.end(), recipe.data.eval.begin(), recipe.data.eval.end());
  const bool on_disk = std::ranges::all_of(
      sets, [&](const data::DatasetOptions& set) { return data::lies_on_disk(set, recipe.data); });
  if (!on_disk) return std::nullopt;
  try {
    const auto tokenizer = tokenizer_of(recipe).tokenizer;
    const auto chat_template = data::choose_chat_template(recipe.data, *tokenizer);
    CachedRows rows;
    for (const data::DatasetOptions& set : sets) {
      const auto report = data::cached_report(set, recipe.data, *tokenizer, chat_template.get(),
                                              model_tokens(architecture));
      if (!report) return std::nullopt;
      rows.examples += report->examples;
      rows.tokens += report->tokens;
    }
    return rows;
  } catch (const Error&) {  // a model without a tokenizer can be planned for all the same
    return std::nullopt;
  }
}

}  // namespace qlora::recipes
