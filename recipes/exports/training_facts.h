// What a model card says of a training: data, settings and figures, in Markdown.
#pragma once

#include <string>

#include "recipes/recipe.h"

namespace qlora::recipes {

// Of the run that `recipe` describes, with the figures of the metrics.jsonl in its output.dir where
// there is one; empty for a recipe without data. Files are named without their directories.
// `compute_dtype`: what train.compute_dtype came to (AdapterBase::compute_dtype).
std::string training_facts(const Recipe& recipe, const std::string& compute_dtype);

}  // namespace qlora::recipes
