// What a model card says of a training: data, settings and figures, in Markdown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/combine_adapters.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// Of the run that `recipe` describes, with the figures of the metrics.jsonl in its output.dir where
// there is one; empty for a recipe without data. Files are named without their directories.
// `compute_dtype`: what train.compute_dtype came to (AdapterBase::compute_dtype). `last_step`: the
// figures are those up to this step; nothing: all of them.
std::string training_facts(const Recipe& recipe, const std::string& compute_dtype,
                           std::optional<int64_t> last_step = {});

// Of an adapter that was made from others, in `directories`: their names and, of several, how they
// became one; of a single one what its own card says of data, settings and figures. Empty without
// directories.
std::string origin_facts(const std::vector<std::string>& directories,
                         const std::optional<lora::CombineOptions>& combination);

}  // namespace qlora::recipes
