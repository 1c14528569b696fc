// Where a GPU's time goes, kernel by kernel: LibTorch's profiler (Kineto on CUPTI) around some
// work. The stages of base/profile.h wait for the device at both ends; this does not, so that it
// shows the gaps in which the device waits for the host.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace qlora::bench {

// Of all events of a name.
struct NamedTime {
  std::string name;
  int64_t calls = 0;
  double seconds = 0;
};

// A gap is a time in which nothing runs on the device.
struct KernelTimes {
  std::vector<NamedTime> kernels;     // copies and fills too; the longest first
  std::vector<NamedTime> host_calls;  // of the host to CUDA, the same; none on a CPU
  double seconds = 0;                 // from the first kernel's start to the last one's end
  double busy_seconds = 0;            // in which a kernel runs
  int64_t gaps = 0;                   // longer than kGapSeconds
  double gap_seconds = 0, longest_gap_seconds = 0;  // of these
};
constexpr double kGapSeconds = 5e-6;

// Of `work`, which has to wait for the device itself before it returns. On a CPU the kernels are
// ATen's operations, each with those inside it.
KernelTimes kernel_times(c10::Device device, const std::function<void()>& work);

// A line of sums, then a line "calls seconds share name" for each kernel and host call of note.
std::string kernel_table(const KernelTimes& times);

}  // namespace qlora::bench
