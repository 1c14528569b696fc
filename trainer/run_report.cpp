#include "trainer/run_report.h"

#include <filesystem>

#include "base/log.h"

namespace qlora::trainer {

RunReport::RunReport(const std::string& run_dir, int64_t last_step)
    : metrics_((std::filesystem::path(run_dir) / "metrics.jsonl").string(), last_step),
      tensorboard_(run_dir) {}

void RunReport::step(const StepMetrics& m) {
  constexpr double kKept = 0.9, kSecondsBetweenLines = 0.5;
  seconds_a_step_ = seconds_a_step_ == 0 ? m.step_seconds
                                         : kKept * seconds_a_step_ + (1 - kKept) * m.step_seconds;
  metrics_.write(m);
  tensorboard_.write(m.step,
                     {{"train/loss", m.loss},
                      {"train/learning_rate", m.learning_rate},
                      {"train/grad_norm", m.grad_norm},
                      {"train/tokens_per_second", static_cast<double>(m.tokens) / m.step_seconds}});
  const bool last = m.step == m.total_steps;
  if (any_line_ && !last && since_line_.seconds() < kSecondsBetweenLines) return;
  log::write_info(console_line(m, seconds_a_step_ * static_cast<double>(m.total_steps - m.step)));
  since_line_ = Stopwatch();
  any_line_ = true;
}

void RunReport::evaluation(int64_t step, const Evaluation& evaluation, bool is_best) {
  metrics_.write_evaluation(step, evaluation.loss, evaluation.supervised_tokens,
                            evaluation.seconds);
  tensorboard_.write(step, {{"eval/loss", evaluation.loss}});
  log::info("evaluation at step {}: loss {:.4f}, perplexity {:.3f} over {} tokens ({:.1f} s){}",
            step, evaluation.loss, evaluation.perplexity(), evaluation.supervised_tokens,
            evaluation.seconds, is_best ? ", the best so far" : "");
}

}  // namespace qlora::trainer
