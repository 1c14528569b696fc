#include "trainer/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/terminal.h"
#include "io/json_text.h"
#include "trainer/run_time.h"
#include "trainer/step_line.h"

namespace qlora::trainer {
namespace {

const std::string kGreen = "\x1b[32m", kPlain = "\x1b[0m";

using Scalars = std::vector<std::pair<std::string, double>>;

void add_preference(const std::optional<PreferenceMetrics>& preference, const std::string& prefix,
                    Scalars& scalars) {
  if (!preference) return;
  for (const auto& [name, value] : preference->named()) scalars.emplace_back(prefix + name, value);
}

// "loss 0.4213, perplexity 1.524 over 1109 tokens", or what is said of pairs instead of the
// perplexity.
std::string in_words(const Evaluation& evaluation) {
  if (!evaluation.preference)
    return fmt::format("loss {:.4f}, perplexity {:.3f} over {} tokens", evaluation.loss,
                       evaluation.perplexity(), evaluation.supervised_tokens);
  return fmt::format("loss {:.4f}, margin {:.3f}, accuracy {:.0f} % of {} pairs", evaluation.loss,
                     evaluation.preference->margin(), 100 * evaluation.preference->accuracy,
                     evaluation.rows.size() / 2);
}

// On one line, in quotes, its line ends written as \n.
std::string quoted(const std::string& text) { return io::json_text_in_utf8(nlohmann::json(text)); }

// As Markdown that shows a text as it is.
std::string as_code(const std::string& text) {
  std::string code = "    ";
  for (const char c : text) code += c == '\n' ? "\n    " : std::string(1, c);
  return code;
}

}  // namespace

RunReport::RunReport(const std::string& run_dir, int64_t last_step, const ReportOptions& options)
    : options_(options),
      metrics_((std::filesystem::path(run_dir) / "metrics.jsonl").string(), last_step),
      samples_((std::filesystem::path(run_dir) / "samples.jsonl").string(), last_step),
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
  Scalars scalars = {{"train/loss", m.loss},
                     {"train/learning_rate", m.learning_rate},
                     {"train/grad_norm", m.grad_norm},
                     {"train/tokens_per_second", static_cast<double>(m.tokens) / m.step_seconds}};
  add_preference(m.preference, "train/", scalars);
  tensorboard_.write(m.step, scalars);
  if (!wants_line(m)) return;
  const double left = seconds_left(m);
  log::write_info(step_line(m, left),
                  step_line(m, left, terminal_width(stderr), takes_colour(stderr)));
  since_line_ = Stopwatch();
  any_line_ = true;
}

void RunReport::evaluation(int64_t step, const Evaluation& evaluation, bool is_best) {
  metrics_.write_evaluation(step, evaluation.loss, evaluation.supervised_tokens, evaluation.seconds,
                            evaluation.preference);
  Scalars scalars = {{"eval/loss", evaluation.loss}};
  add_preference(evaluation.preference, "eval/", scalars);
  tensorboard_.write(step, scalars);
  seconds_an_evaluation_ = evaluation.seconds;
  const std::string line =
      fmt::format("evaluation at step {}: {} ({:.1f} s){}", step, in_words(evaluation),
                  evaluation.seconds, is_best ? ", the best so far" : "");
  const std::string shown = wrapped(line, terminal_width(stderr));
  log::write_info(line, is_best && takes_colour(stderr) ? kGreen + shown + kPlain : shown);
}

void RunReport::samples(int64_t step, const std::vector<Sample>& samples) {
  samples_.write(step, samples);
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto& [prompt, answer] = samples[i];
    log::info("sample at step {}: {} -> {}", step, quoted(prompt), quoted(answer));
    tensorboard_.write_text(step, fmt::format("samples/{}", i + 1),
                            as_code(prompt) + "\n\n**answer**\n\n" + as_code(answer));
  }
}

void RunReport::sync() {
  metrics_.sync();
  samples_.sync();
}

}  // namespace qlora::trainer
