#include "trainer/step_profile.h"

#include "base/device.h"
#include "base/log.h"
#include "base/profile.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kLeftOut = 2;

}  // namespace

StepProfile::StepProfile(std::string trace_path, int64_t steps, c10::Device device)
    : trace_path_(std::move(trace_path)), steps_(steps), device_(device) {}

void StepProfile::after_step() {
  if (steps_ == 0) return;
  ++step_;
  if (step_ == kLeftOut)
    start_profile(device_.is_cpu() ? std::function<void()>()
                                   : [device = device_] { synchronize(device); });
  if (step_ != kLeftOut + steps_) return;
  stop_profile();
  write_chrome_trace(trace_path_);
  log::info("profile of {} steps (the trace for chrome://tracing is {}):", steps_, trace_path_);
  log::write_info(profile_table());
}

}  // namespace qlora::trainer
