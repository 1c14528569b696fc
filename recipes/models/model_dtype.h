// model.dtype: what auto comes to. The type that the file's large matrices have; a GGUF file of
// blocks alone has none, and is read in bfloat16, or in float32 where float32 products were asked
// for (train.compute_dtype: float32, --compute-dtype float32), which would else be of rounded
// weights. compute_dtype: auto asks for nothing, so that every machine reads the same weights.
#pragma once

#include <string>

#include "model/model_header.h"
#include "model/weight_source.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// "bfloat16", "float16" or "float32".
std::string resolved_model_dtype(const Recipe& recipe, const model::WeightSource& source);
// The same where only config.json may be there.
std::string resolved_model_dtype(const Recipe& recipe, const model::ModelHeader& header);

}  // namespace qlora::recipes
