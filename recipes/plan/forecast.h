// How long a run will take, told before its first step.
#pragma once

#include <optional>
#include <string>

#include "data/prepare.h"
#include "distributed/group.h"
#include "recipes/recipe.h"
#include "trainer/run_time.h"
#include "trainer/train_loop.h"

namespace qlora::recipes {

class Forecast {
 public:
  // Measures for about a second how fast two layers train here (trainer/time_plan.h), and warns of
  // settings that cost an order of magnitude (costly_settings.h). To be made before the base is
  // loaded: what it takes is given back then, and the run's peak stays what it was; where it would
  // take more than the run, nothing is measured. Changes nothing that the run depends on.
  // `recipe` with the base that will be read. Errors of planned_run(). All ranks of the group
  // measure at once, each what it computes of a step.
  Forecast(const Recipe& recipe, const trainer::TrainState& state, c10::Device device,
           distributed::Group& group);

  // The estimate of what the job has still to do, or why there is none. Several ranks add their
  // gradients, which must still be zeros, to measure that too.
  void tell(const trainer::TrainJob& job, const data::PreparedData& data) const;

 private:
  int64_t planned_tokens_a_step_ = 0;  // of this rank
  std::optional<trainer::TimePlan> plan_;
  std::string no_plan_;  // why
};

int64_t tokens_of(const data::Examples& examples);

// What is left of the job, for each of its ranks, but for their sums.
trainer::RunLength rest_of(const trainer::TrainJob& job, const data::PreparedData& data,
                           int64_t planned_tokens_a_step);

}  // namespace qlora::recipes
