#include "optim/lr_schedule.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace qlora::optim {
namespace {

// In the order of LrSchedule::Shape.
constexpr const char* kNames[] = {
    "constant",   "reduce_on_plateau", "linear", "cosine", "cosine_with_restarts",
    "polynomial", "inverse_sqrt",      "wsd"};
constexpr double kTimescaleWithoutWarmup = 10000;  // of inverse_sqrt, as transformers

int shape_index(const std::string& name) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<int>(i);
  fail<ConfigError>(
      "optim.schedule must be one of {} (each with optim.warmup_ratio or optim.warmup_steps), got "
      "'{}'",
      fmt::join(kNames, ", "), name);
}

// Half a period of the cosine: 1 at 0, 0 at 1.
double half_cosine(double progress) {
  return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace

void check_schedule_name(const std::string& name) { shape_index(name); }

LrSchedule::LrSchedule(const OptimizerOptions& options, int64_t horizon)
    : shape_(static_cast<Shape>(shape_index(options.schedule))),
      lr_(options.lr),
      min_lr_ratio_(options.min_lr_ratio),
      power_(options.power),
      decay_steps_(std::ceil(options.decay_ratio * static_cast<double>(horizon))),
      num_cycles_(options.num_cycles),
      horizon_(horizon) {
  if (horizon < 1)
    fail<ConfigError>("the number of optimizer steps must be at least 1, got {}", horizon);
  warmup_steps_ =
      options.warmup_steps > 0
          ? options.warmup_steps
          : static_cast<int64_t>(std::ceil(options.warmup_ratio * static_cast<double>(horizon)));
}

std::string rate_sentence(const LrSchedule& schedule, int64_t steps) {
  if (schedule.peak() == 0) return "optim.lr is 0: the run trains nothing";
  if (steps > schedule.warmup_steps()) return "";
  const std::string course =
      steps == 1 ? "the learning rate of its one step is 0, which trains nothing"
                 : fmt::format("the learning rate goes from 0 to {:.3g} and never reaches optim.lr",
                               schedule.at(steps - 1));
  return fmt::format(
      "optim.warmup_steps, optim.warmup_ratio: the warm-up takes {} steps and the run has {}: {}; "
      "lower what is set of the two",
      schedule.warmup_steps(), steps, course);
}

void Plateau::evaluated(double loss, const OptimizerOptions& options) {
  if (loss < best * (1.0 - 1e-4)) {
    best = loss;
    stale = 0;
  } else {
    ++stale;
  }
  if (stale <= options.plateau_patience) return;
  factor = std::max(factor * options.plateau_factor, options.min_lr_ratio);
  stale = 0;
}

bool LrSchedule::ends_at_zero() const {
  return factor(std::max(horizon_, warmup_steps_) + 1) == 0.0;
}

double LrSchedule::at(int64_t step) const {
  check(step >= 0, "LrSchedule: the step must be >= 0, got {}", step);
  return lr_ * factor(step);
}

double LrSchedule::factor(int64_t step) const {
  const auto s = static_cast<double>(step), w = static_cast<double>(warmup_steps_);
  if (step < warmup_steps_) return s / std::max(1.0, w);
  const auto horizon = static_cast<double>(horizon_);
  const double progress = std::min(1.0, (s - w) / std::max(1.0, horizon - w));
  const auto above_least = [least = min_lr_ratio_](double f) { return least + (1.0 - least) * f; };
  switch (shape_) {
    case Shape::kLinear:
      return std::max(0.0, (horizon - s) / std::max(1.0, horizon - w));
    case Shape::kCosine:
      return above_least(half_cosine(progress));
    case Shape::kCosineWithRestarts:
      return above_least(
          progress < 1 ? half_cosine(std::fmod(static_cast<double>(num_cycles_) * progress, 1.0))
                       : 0.0);
    case Shape::kPolynomial:
      return above_least(std::pow(1.0 - progress, power_));
    case Shape::kInverseSqrt: {
      const double timescale = w > 0 ? w : kTimescaleWithoutWarmup;
      return 1.0 / std::sqrt((s + timescale - w) / timescale);
    }
    case Shape::kWsd: {
      const double begin = std::max(w, horizon - decay_steps_);
      if (s < begin) return 1.0;
      return above_least(half_cosine(std::min(1.0, (s - begin) / std::max(1.0, horizon - begin))));
    }
    case Shape::kConstant:
    case Shape::kReduceOnPlateau:
      break;
  }
  return 1.0;
}

}  // namespace qlora::optim
