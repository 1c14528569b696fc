// Where a run's numbers go: the terminal, metrics.jsonl and TensorBoard.
#pragma once

#include <string>

#include "base/stopwatch.h"
#include "trainer/evaluate.h"
#include "trainer/metrics.h"
#include "trainer/tensorboard.h"

namespace qlora::trainer {

class RunReport {
 public:
  // Continues the metrics of `run_dir` after `last_step`.
  RunReport(const std::string& run_dir, int64_t last_step);
  // The terminal gets at most two lines a second, the first and the last step in any case.
  void step(const StepMetrics& metrics);
  void evaluation(int64_t step, const Evaluation& evaluation, bool is_best);

 private:
  MetricsLog metrics_;
  TensorboardLog tensorboard_;
  Stopwatch since_line_;
  bool any_line_ = false;
  double seconds_a_step_ = 0;  // moving average
};

}  // namespace qlora::trainer
