// What is known of a recipe's rows before they are read.
#pragma once

#include <cstdint>
#include <optional>

#include "model/architecture.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

struct CachedRows {
  int64_t examples = 0, tokens = 0;  // of data.train and data.eval; a pair is one example
};

// As the cache of tokenized rows counts them (data/cache/cached_dataset.h). Nothing unless it has
// all of them.
std::optional<CachedRows> cached_rows(const Recipe& recipe,
                                      const model::Architecture& architecture);

}  // namespace qlora::recipes
