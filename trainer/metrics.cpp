#include "trainer/metrics.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::trainer {
namespace {

// Lines that a program can read and that are of no later step. One that was cut off by a kill does
// not parse: it belongs to a step that is run again.
std::string lines_up_to(const std::string& text, int64_t last_step) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto json = io::json_or_discarded(line);
    if (!json.is_object()) continue;
    const auto step = json.find("step");
    if (step == json.end() || !step->is_number_integer() || step->get<int64_t>() <= last_step)
      kept += line + '\n';
  }
  return kept;
}

// The path of a file that holds nothing of later steps.
std::string cut_after(const std::string& path, int64_t last_step) {
  if (!std::filesystem::exists(path)) return path;
  const std::string text = io::read_bytes(path);
  if (const std::string kept = lines_up_to(text, last_step); kept != text)
    io::write_file_atomically(path, kept);
  return path;
}

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
