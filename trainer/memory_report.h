// Says once, after the first ten steps or a shorter run's last, how much memory the plan predicted
// and how much was taken.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace qlora::trainer {

class MemoryReport {
 public:
  // `predicted`: MemoryPlan::training_peak().
  MemoryReport(int64_t predicted, c10::Device device) : predicted_(predicted), device_(device) {}
  // After each step, before its evaluations and saves.
  void after_step(bool last);

 private:
  int64_t predicted_, step_ = 0;
  bool said_ = false;
  c10::Device device_;
};

}  // namespace qlora::trainer
