#include "trainer/metrics.h"

#include <nlohmann/json.hpp>

#include "io/json_text.h"
#include "trainer/cut_lines.h"

namespace qlora::trainer {
namespace {

void add_preference(const std::optional<PreferenceMetrics>& preference, const std::string& prefix,
                    nlohmann::ordered_json& line) {
  if (!preference) return;
  for (const auto& [name, value] : preference->named()) line[prefix + name] = value;
}

}  // namespace

MetricsLog::MetricsLog(const std::string& path, int64_t last_step)
    : file_(cut_after(path, last_step)) {}

void MetricsLog::write(const StepMetrics& m) {
  nlohmann::ordered_json line = {
      {"step", m.step},
      {"epoch", m.epoch},
      {"loss", m.loss},
      {"learning_rate", m.learning_rate},
      {"grad_norm", m.grad_norm},
      {"tokens", m.tokens},
      {"supervised_tokens", m.supervised_tokens},
      {"tokens_per_second", static_cast<double>(m.tokens) / m.step_seconds},
      {"step_seconds", m.step_seconds},
      {"peak_memory_bytes", m.peak_memory_bytes}};
  add_preference(m.preference, "", line);
  file_.append(io::json_text(line) + '\n');
}

void MetricsLog::write_evaluation(int64_t step, double eval_loss, int64_t supervised_tokens,
                                  double seconds,
                                  const std::optional<PreferenceMetrics>& preference) {
  nlohmann::ordered_json line = {{"step", step},
                                 {"eval_loss", eval_loss},
                                 {"eval_supervised_tokens", supervised_tokens},
                                 {"eval_seconds", seconds}};
  add_preference(preference, "eval_", line);
  file_.append(io::json_text(line) + '\n');
}

}  // namespace qlora::trainer
