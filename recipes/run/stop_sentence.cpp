#include "recipes/run/stop_sentence.h"

#include <fmt/format.h>

#include "export/card_text.h"

namespace qlora::recipes {
namespace {

std::string place_of(const Stopped& stopped, const trainer::TrainState& state) {
  const int64_t done = state.step;
  if (state.evaluation_due)
    return fmt::format(
        "stopped in the evaluation after step {} at row {} of {}; it will be done again, the run "
        "is saved after step {}",
        done, stopped.done, stopped.total, done);
  if (stopped.total > 0)
    return fmt::format(
        "stopped in step {} after micro-batch {} of {}; the step is abandoned, the run is saved "
        "after step {}",
        done + 1, stopped.done, stopped.total, done);
  return fmt::format("stopped after step {} and saved", done);
}

}  // namespace

std::string stop_sentence(const Stopped& stopped, const trainer::TrainState& state,
                          const std::string& run_dir) {
  return fmt::format("{}; go on with: qlora resume {}", place_of(stopped, state),
                     exporting::shell_word(run_dir));
}

}  // namespace qlora::recipes
