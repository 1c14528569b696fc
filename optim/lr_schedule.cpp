#include "optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace qlora::optim {
namespace {

constexpr const char* kNames[] = {"constant", "linear",
                                  "cosine"};  // in the order of LrSchedule::Shape

int shape_index(const std::string& name) {
  for (int i = 0; i < 3; ++i)
    if (name == kNames[i]) return i;
  fail<ConfigError>(
      "optim.schedule must be constant, linear or cosine (each with optim.warmup_ratio or "
      "optim.warmup_steps), got '{}'",
      name);
}

}  // namespace

void check_schedule_name(const std::string& name) { shape_index(name); }

LrSchedule::LrSchedule(const OptimizerOptions& options, int64_t horizon)
    : shape_(static_cast<Shape>(shape_index(options.schedule))),
      lr_(options.lr),
      horizon_(horizon) {
  if (horizon < 1)
    fail<ConfigError>("the number of optimizer steps must be at least 1, got {}", horizon);
  warmup_steps_ =
      options.warmup_steps > 0
          ? options.warmup_steps
          : static_cast<int64_t>(std::ceil(options.warmup_ratio * static_cast<double>(horizon)));
}

double LrSchedule::at(int64_t step) const {
  check(step >= 0, "LrSchedule: the step must be >= 0, got {}", step);
  return lr_ * factor(step);
}

double LrSchedule::factor(int64_t step) const {
  const auto s = static_cast<double>(step), w = static_cast<double>(warmup_steps_);
  if (step < warmup_steps_) return s / std::max(1.0, w);
  const auto horizon = static_cast<double>(horizon_);
  const double decay_steps = std::max(1.0, horizon - w);
  switch (shape_) {
    case Shape::kLinear:
      return std::max(0.0, (horizon - s) / decay_steps);
    case Shape::kCosine:
      return std::max(
          0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, (s - w) / decay_steps))));
    case Shape::kConstant:
      break;
  }
  return 1.0;
}

}  // namespace qlora::optim
