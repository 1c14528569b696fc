// The learning rate as a pure function of the step. With w warm-up steps, horizon T and peak rate
// lr:
//
//   warm-up (s < w):  lr s / max(1, w)
//   constant:         lr
//   linear:           lr max(0, (T - s) / max(1, T - w))
//   cosine:           lr (1 + cos(pi p)) / 2,   p = min(1, (s - w) / max(1, T - w))
//
// The values of transformers' get_{constant,linear,cosine}_schedule_with_warmup for 0 <= s <= T.
// Past the horizon all keep their value at T (there the cosine of transformers climbs again). With
// warm-up the first step has rate 0, as there.
//
// The horizon is the total number of optimizer steps. It is part of the state of a run: a resumed
// run that is to be longer says whether the old horizon stays or a new one is taken.
#pragma once

#include <cstdint>
#include <string>

#include "optim/optimizer_options.h"

namespace qlora::optim {

class LrSchedule {
 public:
  // ConfigError if the schedule's name is unknown or the horizon is below 1.
  LrSchedule(const OptimizerOptions& options, int64_t horizon);

  // The rate of step `step`, counted from 0.
  double at(int64_t step) const;
  // optim.warmup_steps, or else ceil(optim.warmup_ratio * horizon).
  int64_t warmup_steps() const { return warmup_steps_; }
  int64_t horizon() const { return horizon_; }

 private:
  enum class Shape { kConstant, kLinear, kCosine };
  double factor(int64_t step) const;

  Shape shape_;
  double lr_;
  int64_t warmup_steps_, horizon_;
};

// ConfigError that lists the known names.
void check_schedule_name(const std::string& name);

}  // namespace qlora::optim
