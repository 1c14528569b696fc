// How long a run will take, from what a step was planned to take and what the run's data are.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/time_plan.h"

namespace qlora::trainer {

// What is still to be done; of several ranks, by one of them.
struct RunLength {
  int64_t steps = 0;
  double tokens_a_step = 0, planned_tokens_a_step = 0;  // of the rows, and of the plan
  int64_t evaluations = 0;
  double tokens_an_evaluation = 0;
  double sum_seconds = 0;  // of adding the ranks' gradients, a step
};

// A forward pass takes about this share of the same tokens' training.
constexpr double kForwardShare = 0.5;

// Evaluations after `step`: each `every` steps (0: none of these) and at the end.
int64_t evaluations_after(int64_t step, int64_t total_steps, int64_t every);

struct RunTime {
  int64_t steps = 0;
  double seconds_a_step = 0, evaluation_seconds = 0;  // of all evaluations

  double step_seconds() const { return static_cast<double>(steps) * seconds_a_step; }
  double seconds() const { return step_seconds() + evaluation_seconds; }
  // "5.3 s a step, 30 steps: 2:40, with evaluations about 3 min"
  std::string to_text() const;
};

// Stages that are the same whatever a step's tokens are (dequantizing, the optimizer's) count as
// they were planned, the others by the tokens; a token that is evaluated takes half of one that is
// trained. A step fetches what it was planned to, however many tokens it has, and adds the ranks'
// gradients when it has computed its own.
RunTime run_time(const TimePlan& plan, const RunLength& length);

}  // namespace qlora::trainer
