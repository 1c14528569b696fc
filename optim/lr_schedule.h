// The learning rate as a pure function of the step. With w warm-up steps, horizon T and peak rate
// lr, and p = min(1, (s - w) / max(1, T - w)) the share of the course that is done:
//
//   warm-up (s < w):       lr s / max(1, w)
//   constant:              lr
//   reduce_on_plateau:     lr, times the factor below
//   linear:                lr (1 - p)
//   cosine:                lr (m + (1 - m) (1 + cos(pi p)) / 2),        m = min_lr_ratio
//   cosine_with_restarts:  the cosine over the fraction of num_cycles p;  lr m at the end
//   polynomial:            lr (m + (1 - m) (1 - p)^power)
//   inverse_sqrt:          lr sqrt(t / (s + t - w)),   t = w, or 10,000 without warm-up
//   wsd:                   lr until s = T - d, then the cosine over the last d steps (warm-up,
//                          stable, decay; Hu et al. 2024, MiniCPM, section 4),
//                          d = ceil(decay_ratio T)
//
// The values of transformers' get_*_schedule for 0 <= s <= T (tests/interop/
// transformers_lr_schedule.py). Past the horizon all but inverse_sqrt keep their value at T (there
// the cosine of transformers climbs again). With warm-up the first step has rate 0, as there.
//
// The horizon is the total number of optimizer steps. It is part of the state of a run: a resumed
// run that is to be longer says whether the old horizon stays or a new one is taken.
#pragma once

#include <cstdint>
#include <limits>
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
  double peak() const { return lr_; }
  // Whether its course ends at a rate of 0 and stays there: steps past the horizon train nothing.
  // Not of optim.lr 0, with which no step trains.
  bool ends_at_zero() const;

 private:
  enum class Shape {
    kConstant,
    kReduceOnPlateau,
    kLinear,
    kCosine,
    kCosineWithRestarts,
    kPolynomial,
    kInverseSqrt,
    kWsd
  };
  double factor(int64_t step) const;

  Shape shape_;
  double lr_, min_lr_ratio_, power_, decay_steps_;
  int64_t num_cycles_;
  int64_t warmup_steps_, horizon_;
};

// What to warn of if the peak is 0, or if all steps of a run lie in its warm-up, of which the first
// has a rate of 0; else empty.
std::string rate_sentence(const LrSchedule& schedule, int64_t steps);

// Of reduce_on_plateau, which follows the evaluation loss instead of the step: the rate is
// multiplied by optim.plateau_factor once more than optim.plateau_patience evaluations in a row are
// not better than the best by 1e-4 of it, never below min_lr_ratio (torch's ReduceLROnPlateau with
// its defaults). Evaluations within the warm-up do not count. Part of a run's state.
struct Plateau {
  double factor = 1.0;  // on the rate
  double best = std::numeric_limits<double>::infinity();
  int64_t stale = 0;
  void evaluated(double loss, const OptimizerOptions& options);
};

// ConfigError that lists the known names.
void check_schedule_name(const std::string& name);

}  // namespace qlora::optim
