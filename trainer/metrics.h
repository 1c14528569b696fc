// What a run reports of each step: a line on the terminal (step_line.h), a line of metrics.jsonl.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace qlora::trainer {

struct StepMetrics {
  int64_t step = 0, total_steps = 0;
  double epoch = 0;
  double loss = 0, learning_rate = 0;
  double grad_norm = 0;                       // before clipping
  int64_t tokens = 0, supervised_tokens = 0;  // of this step
  double step_seconds = 0;
  int64_t peak_memory_bytes = 0;
};

// metrics.jsonl: one JSON object a line, flushed line by line. A resumed run appends after cutting
// the lines of steps that its checkpoint has not seen.
class MetricsLog {
 public:
  // Opens for appending and keeps only lines with step <= `last_step`. IoError if it cannot be
  // written.
  MetricsLog(const std::string& path, int64_t last_step);
  void write(const StepMetrics& metrics);
  void write_evaluation(int64_t step, double eval_loss, int64_t supervised_tokens, double seconds);

 private:
  std::string path_;
  std::ofstream file_;
};

}  // namespace qlora::trainer
