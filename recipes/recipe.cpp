#include "recipes/recipe.h"

#include "base/error.h"

namespace qlora::recipes {

void Recipe::validate_across_sections() const {
  const bool evaluates = train.eval_every > 0 && (!data.eval.empty() || data.eval_fraction != 0.0);
  if (optim.schedule == "reduce_on_plateau" && !evaluates)
    throw ConfigError(
        "optim.schedule: reduce_on_plateau follows the evaluation loss; give data.eval or "
        "data.eval_fraction, and train.eval_every");
  if (train.eval_every > 0 && data.eval.empty() && data.eval_fraction == 0.0)
    fail<ConfigError>(
        "train.eval_every is {}, but there is nothing to evaluate on; give data.eval or "
        "data.eval_fraction, or leave it out",
        train.eval_every);
  if (optim.stochastic_rounding && lora.dtype != "bfloat16")
    fail<ConfigError>(
        "optim.stochastic_rounding rounds to bfloat16, and lora.dtype is {}; set lora.dtype: "
        "bfloat16, or leave it out",
        lora.dtype);
}

}  // namespace qlora::recipes
