#include "recipes/run/judged_evaluations.h"

#include <limits>

#include "recipes/report/metrics_columns.h"

namespace qlora::recipes {

int64_t stale_evaluations(const std::string& metrics, double min_delta,
                          const trainer::TrainState& state) {
  const auto evaluations = metrics_columns(metrics).evaluations;
  if (!evaluations.contains("eval_loss")) return state.stale_evaluations;
  const auto &steps = evaluations["step"], &losses = evaluations["eval_loss"];
  double best = std::numeric_limits<double>::infinity();
  int64_t stale = 0;
  // Up to which they count: one that is due is made again, whatever a kill has left of it.
  const int64_t last = state.evaluation_due ? state.step - 1 : state.step;
  for (size_t i = 0; i < losses.size(); ++i) {
    if (!steps[i].is_number() || steps[i].get<double>() > static_cast<double>(last)) continue;
    if (i + 1 < losses.size() && steps[i + 1] == steps[i]) continue;  // it was made again
    // A loss that is no number is written as null.
    const double loss =
        losses[i].is_number() ? losses[i].get<double>() : std::numeric_limits<double>::quiet_NaN();
    stale = loss < best - min_delta ? 0 : stale + 1;
    if (loss < best) best = loss;
  }
  return best == state.best_eval_loss ? stale : state.stale_evaluations;
}

}  // namespace qlora::recipes
