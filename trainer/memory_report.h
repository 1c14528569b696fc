// Says once, after the first ten steps or a shorter run's last, how much memory the plan predicted
// and how much was taken, and writes it with the plan's lines into the run's memory.json.
#pragma once

#include <c10/core/Device.h>

#include <string>
#include <utility>

#include "trainer/memory_plan.h"

namespace qlora::trainer {

// {"predicted_bytes", "measured_bytes", "device", "lines": [{"purpose", "phase", "bytes"}, ...]}
constexpr const char* kMemoryFile = "memory.json";

class MemoryReport {
 public:
  // What it predicts is MemoryPlan::training_peak(). `path`: of memory.json.
  MemoryReport(MemoryPlan plan, c10::Device device, std::string path)
      : plan_(std::move(plan)), device_(device), path_(std::move(path)) {}
  // After each step, before its evaluations and saves. IoError if the file cannot be written.
  void after_step(bool last);

 private:
  void write(int64_t measured) const;

  MemoryPlan plan_;
  int64_t step_ = 0;
  bool said_ = false;
  c10::Device device_;
  std::string path_;
};

}  // namespace qlora::trainer
