#include "recipes/models/model_dtype.h"

#include "model/load.h"
#include "quant/frozen_size.h"

namespace qlora::recipes {

std::string resolved_model_dtype(const Recipe& recipe, const model::WeightSource& source) {
  if (recipe.model.dtype == "auto" && recipe.train.compute_dtype == "float32" &&
      source.has_blocks_alone())
    return "float32";
  return quant::dense_format(model::resolved_dtype(recipe.model.dtype, source));
}

std::string resolved_model_dtype(const Recipe& recipe, const model::ModelHeader& header) {
  if (header.weights) return resolved_model_dtype(recipe, *header.weights);
  return recipe.model.dtype == "auto" ? header.dtype : recipe.model.dtype;
}

}  // namespace qlora::recipes
