#include "trainer/step_profile.h"

#include "base/device.h"
#include "base/log.h"
#include "base/profile.h"
#include "distributed/group.h"
#include "io/atomic_write.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kLeftOut = 2;

// Of steps that took `seconds` in all.
void tell_communication(int64_t steps, double seconds) {
  for (const StageTime& stage : stage_times())
    if (stage.stage == distributed::kCommunication)
      log::info(
          "adding the ranks' gradients and waiting for other ranks: {:.4f} s a step, {:.1f} % of "
          "it",
          stage.seconds / static_cast<double>(steps), 100 * stage.seconds / seconds);
}

}  // namespace

StepProfile::StepProfile(std::string trace_path, int64_t steps, c10::Device device)
    : trace_path_(std::move(trace_path)), steps_(steps), device_(device) {}

void StepProfile::after_step() {
  if (steps_ == 0) return;
  ++step_;
  if (step_ == kLeftOut) {
    watch_.restart();
    start_profile(device_.is_cpu() ? std::function<void()>()
                                   : [device = device_] { synchronize(device); });
  }
  if (step_ - kLeftOut == steps_) write();
}

void StepProfile::at_the_end() {
  if (steps_ == 0 || over_) return;
  over_ = true;
  if (step_ > kLeftOut) return write();
  if (step_ == kLeftOut) stop_profile();
  log::warning(
      "train.profile_steps: nothing is profiled: the first {} steps are left out, and {} were made",
      kLeftOut, step_);
}

void StepProfile::write() {
  over_ = true;
  const int64_t steps = step_ - kLeftOut;
  const double seconds = watch_.seconds();
  stop_profile();
  io::write_file_atomically(trace_path_, chrome_trace());
  log::info("profile of {} steps (the trace for chrome://tracing is {}):", steps, trace_path_);
  log::write_info(profile_table());
  tell_communication(steps, seconds);
}

}  // namespace qlora::trainer
