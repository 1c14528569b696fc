// Where a run's numbers and sample answers go: the terminal, metrics.jsonl, samples.jsonl and
// TensorBoard.
#pragma once

#include <string>
#include <vector>

#include "base/stopwatch.h"
#include "trainer/evaluate.h"
#include "trainer/metrics.h"
#include "trainer/samples.h"
#include "trainer/tensorboard.h"

namespace qlora::trainer {

struct ReportOptions {
  int64_t log_every = 0;             // steps between lines; 0: at most two lines a second
  int64_t eval_every = 0;            // as in TrainJob
  int64_t tokens_an_evaluation = 0;  // 0: there are no evaluations
};

class RunReport {
 public:
  // Continues the metrics of `run_dir` after `last_step`.
  RunReport(const std::string& run_dir, int64_t last_step, const ReportOptions& options);
  // The first and the last step get a line in any case. The time left is that of the steps and
  // evaluations to come, by what those so far took.
  void step(const StepMetrics& metrics);
  void evaluation(int64_t step, const Evaluation& evaluation, bool is_best);
  bool has_samples(int64_t step) const { return samples_.holds(step); }
  // Into log.txt, samples.jsonl and, as text samples/1, samples/2, ..., TensorBoard.
  void samples(int64_t step, const std::vector<Sample>& samples);
  // Waits until the lines of metrics.jsonl and samples.jsonl are on the disk: before a checkpoint
  // that follows them.
  void sync();

 private:
  bool wants_line(const StepMetrics& metrics) const;
  double seconds_left(const StepMetrics& metrics) const;

  ReportOptions options_;
  MetricsLog metrics_;
  SampleLog samples_;
  TensorboardLog tensorboard_;
  Stopwatch since_line_;
  bool any_line_ = false;
  double seconds_a_step_ = 0;         // moving average
  double seconds_an_evaluation_ = 0;  // of the last one; 0: there was none yet
};

}  // namespace qlora::trainer
