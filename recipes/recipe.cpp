#include "recipes/recipe.h"

#include "base/error.h"

namespace qlora::recipes {
namespace {

void validate_objective(const Recipe& recipe) {
  const std::string& objective = recipe.train.objective;
  const bool compares = objective != "sft", has_pairs = recipe.data.has_pairs();
  if (has_pairs && !compares)
    throw ConfigError(
        "train.objective: rows of format preference are learnt from by dpo or orpo, found sft; set "
        "one of the two");
  if (!has_pairs && compares && !recipe.data.train.empty())
    fail<ConfigError>(
        "train.objective: {} compares a chosen with a rejected answer, and data.train[0].format is "
        "{}; set it to preference, or train.objective to sft",
        objective, recipe.data.train.front().format);
  if (objective == "dpo" && recipe.data.train_on == data::TrainOn::kAll)
    throw ConfigError(
        "data.train_on: dpo compares answers, and their prompts say nothing; leave it out");
}

}  // namespace

void Recipe::validate_across_sections() const {
  validate_objective(*this);
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
