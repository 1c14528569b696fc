#include "trainer/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/terminal.h"
#include "trainer/run_time.h"
#include "trainer/step_line.h"

namespace qlora::trainer {
namespace {

const std::string kGreen = "\x1b[32m", kPlain = "\x1b[0m";

}  // namespace

RunReport::RunReport(const std::string& run_dir, int64_t last_step, const ReportOptions& options)
    : options_(options),
      metrics_((std::filesystem::path(run_dir) / "metrics.jsonl").string(), last_step),
      tensorboard_(run_dir, last_step) {}

bool RunReport::wants_line(const StepMetrics& m) const {
  constexpr double kSecondsBetweenLines = 0.5;
  if (!any_line_ || m.step == m.total_steps) return true;
  if (options_.log_every > 0) return m.step % options_.log_every == 0;
  return since_line_.seconds() >= kSecondsBetweenLines;
}

double RunReport::seconds_left(const StepMetrics& m) const {
  const double steps = seconds_a_step_ * static_cast<double>(m.total_steps - m.step);
  if (options_.tokens_an_evaluation == 0) return steps;
  const double a_token = seconds_a_step_ / static_cast<double>(std::max<int64_t>(m.tokens, 1));
  const double an_evaluation =
      seconds_an_evaluation_ > 0
          ? seconds_an_evaluation_
          : kForwardShare * a_token * static_cast<double>(options_.tokens_an_evaluation);
  // The evaluation that is due after this step is still to be done.
  const int64_t evaluations = evaluations_after(m.step - 1, m.total_steps, options_.eval_every);
  return steps + an_evaluation * static_cast<double>(evaluations);
}

void RunReport::step(const StepMetrics& m) {
  constexpr double kKept = 0.9;
  seconds_a_step_ = seconds_a_step_ == 0 ? m.step_seconds
                                         : kKept * seconds_a_step_ + (1 - kKept) * m.step_seconds;
  metrics_.write(m);
  tensorboard_.write(m.step,
                     {{"train/loss", m.loss},
                      {"train/learning_rate", m.learning_rate},
                      {"train/grad_norm", m.grad_norm},
                      {"train/tokens_per_second", static_cast<double>(m.tokens) / m.step_seconds}});
  if (!wants_line(m)) return;
  const double left = seconds_left(m);
  log::write_info(step_line(m, left),
                  step_line(m, left, terminal_width(stderr), takes_colour(stderr)));
  since_line_ = Stopwatch();
  any_line_ = true;
}

void RunReport::evaluation(int64_t step, const Evaluation& evaluation, bool is_best) {
  metrics_.write_evaluation(step, evaluation.loss, evaluation.supervised_tokens,
                            evaluation.seconds);
  tensorboard_.write(step, {{"eval/loss", evaluation.loss}});
  seconds_an_evaluation_ = evaluation.seconds;
  const std::string line = fmt::format(
      "evaluation at step {}: loss {:.4f}, perplexity {:.3f} over {} tokens ({:.1f} s){}", step,
      evaluation.loss, evaluation.perplexity(), evaluation.supervised_tokens, evaluation.seconds,
      is_best ? ", the best so far" : "");
  const std::string shown = wrapped(line, terminal_width(stderr));
  log::write_info(line, is_best && takes_colour(stderr) ? kGreen + shown + kPlain : shown);
}

}  // namespace qlora::trainer
