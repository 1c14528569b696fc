#include "trainer/metrics.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "io/json_text.h"

namespace qlora::trainer {
namespace {

std::vector<std::string> lines_up_to(const std::string& path, int64_t last_step) {
  std::vector<std::string> kept;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto json = io::json_or_discarded(line);
    // A line cut off by a kill does not parse: it belongs to a step that is run again.
    if (json.is_object() && json.value("step", int64_t{0}) <= last_step) kept.push_back(line);
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::string& path, int64_t last_step) : path_(path) {
  const auto kept =
      std::filesystem::exists(path) ? lines_up_to(path, last_step) : std::vector<std::string>{};
  file_.open(path, std::ios::trunc);
  for (const std::string& line : kept) file_ << line << '\n';
  file_.flush();
  if (!file_)
    fail<IoError>("{}: cannot be written; check the folder's permissions and the free space", path);
}

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
  file_ << io::json_text(line) << std::endl;
  if (!file_) fail<IoError>("{}: cannot be written; is the disk full?", path_);
}

void MetricsLog::write_evaluation(int64_t step, double eval_loss, int64_t supervised_tokens,
                                  double seconds) {
  nlohmann::ordered_json line = {{"step", step},
                                 {"eval_loss", eval_loss},
                                 {"eval_supervised_tokens", supervised_tokens},
                                 {"eval_seconds", seconds}};
  file_ << io::json_text(line) << std::endl;
  if (!file_) fail<IoError>("{}: cannot be written; is the disk full?", path_);
}

}  // namespace qlora::trainer
