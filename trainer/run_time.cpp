#include "trainer/run_time.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/progress.h"

namespace qlora::trainer {
namespace {

bool grows_with_tokens(const std::string& stage) {
  return stage != "dequantize" && stage != "optimizer" && stage != "publish" &&
         stage != "gradient norm";
}

// "45 s", "3 min", "5.2 h"
std::string rounded(double seconds) {
  constexpr double kMinute = 60, kHour = 3600;
  if (seconds < 1.5 * kMinute) return fmt::format("{:.0f} s", seconds);
  if (seconds < 1.5 * kHour) return fmt::format("{:.0f} min", seconds / kMinute);
  return fmt::format("{:.1f} h", seconds / kHour);
}

}  // namespace

int64_t evaluations_after(int64_t step, int64_t total_steps, int64_t every) {
  if (step >= total_steps) return 0;
  if (every == 0) return 1;
  return total_steps / every - step / every + (total_steps % every > 0);
}

std::string RunTime::to_text() const {
  const std::string a_step = seconds_a_step < 10 ? fmt::format("{:.2g}", seconds_a_step)
                                                 : fmt::format("{:.0f}", seconds_a_step);
  std::string text =
      fmt::format("{} s a step, {} steps: {}", a_step, steps, clock_text(step_seconds()));
  if (evaluation_seconds > 0)
    text += fmt::format(", with evaluations about {}", rounded(seconds()));
  return text;
}

RunTime run_time(const TimePlan& plan, const RunLength& length) {
  double by_tokens = 0, fixed = 0;
  for (const StagePlan& stage : plan.stages)
    (grows_with_tokens(stage.stage) ? by_tokens : fixed) += stage.seconds;
  const double a_token = by_tokens / length.planned_tokens_a_step;
  const double fetch_a_token = plan.fetch.seconds / length.planned_tokens_a_step;
  RunTime time;
  time.steps = length.steps;
  time.seconds_a_step =
      std::max(fixed + a_token * length.tokens_a_step, plan.fetch.seconds) + length.sum_seconds;
  time.evaluation_seconds = kForwardShare * std::max(a_token, fetch_a_token) *
                            static_cast<double>(length.evaluations) * length.tokens_an_evaluation;
  return time;
}

}  // namespace qlora::trainer
