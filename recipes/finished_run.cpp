#include "recipes/finished_run.h"

#include <filesystem>

#include "base/log.h"

namespace qlora::recipes {

bool is_finished(const Recipe& recipe, const RunDirectory& run, const trainer::TrainState& state) {
  if (!run.checkpoint() || state.evaluation_due || !std::filesystem::exists(run.file("adapter")))
    return false;
  const trainer::TrainOptions& now = recipe.train;
  if (now.early_stopping_patience > 0 && state.stale_evaluations >= now.early_stopping_patience)
    return true;
  if (now.max_steps > 0) return state.step >= now.max_steps;
  return state.step >= state.horizon && now.epochs == read_run_recipe(run.path()).train.epochs;
}

void tell_finished(const RunDirectory& run, const trainer::TrainState& state) {
  log::info(
      "{} was finished before: {} steps, {} tokens; nothing is left to train and nothing was "
      "changed",
      run.path(), state.step, state.tokens);
  log::write_info(
      "longer: --set train.max_steps=N (or train.epochs) --set train.on_extend=continue; anew: "
      "--overwrite, or another output.dir");
}

}  // namespace qlora::recipes
