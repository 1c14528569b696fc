// What a run reports of each step: a line on the terminal (step_line.h), a line of metrics.jsonl.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/append_file.h"
#include "trainer/preference_loss.h"

namespace qlora::trainer {

struct StepMetrics {
  int64_t step = 0, total_steps = 0;
  double epoch = 0;
  double loss = 0, learning_rate = 0;
  double grad_norm = 0;                       // before clipping
  int64_t tokens = 0, supervised_tokens = 0;  // of this step
  double step_seconds = 0;
  int64_t peak_memory_bytes = 0;
  std::optional<PreferenceMetrics> preference = {};  // of pairs of answers
};

// metrics.jsonl: one JSON object a line, written line by line. A resumed run appends after the
// lines of steps that its checkpoint has seen; those of later steps go.
class MetricsLog {
 public:
  // Opens for appending and keeps only lines with step <= `last_step` (cut_lines.h). IoError if it
  // cannot be written.
  MetricsLog(const std::string& path, int64_t last_step);
  void write(const StepMetrics& metrics);
  void write_evaluation(int64_t step, double eval_loss, int64_t supervised_tokens, double seconds,
                        const std::optional<PreferenceMetrics>& preference = {});
  // Waits until every line is on the disk.
  void sync() { file_.sync(); }

 private:
  io::AppendFile file_;
};

}  // namespace qlora::trainer
