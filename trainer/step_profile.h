// Where the time of some steps goes: a table on the terminal and a Chrome trace in the run
// directory. The first steps are left out: they size buffers that later ones reuse. Of several
// ranks it is the first one's, to whom the others' slowness shows as communication.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

#include "base/stopwatch.h"

namespace qlora::trainer {

// The trace in the run directory.
constexpr const char* kProfileFile = "profile.json";

class StepProfile {
 public:
  // Of `steps` steps (0: none); the trace goes to `trace_path`.
  StepProfile(std::string trace_path, int64_t steps, c10::Device device);
  // After each step, before its evaluations and saves.
  void after_step();
  // The run is over or stopped: writes what there is where steps are still missing, or says that
  // there is nothing; once.
  void at_the_end();

 private:
  void write();

  std::string trace_path_;
  int64_t steps_, step_ = 0;
  bool over_ = false;
  Stopwatch watch_;  // since the profile's start
  c10::Device device_;
};

}  // namespace qlora::trainer
