#include "bench/kernel_times.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace qlora::bench {
namespace {
namespace profiler = torch::autograd::profiler;

constexpr double kNanosecond = 1e-9;
constexpr size_t kShownKernels = 40, kShownCalls = 12, kShownLetters = 120;

struct Span {
  uint64_t begin_ns, end_ns;
};

std::vector<NamedTime> by_time(const std::map<std::string, NamedTime>& by_name) {
  std::vector<NamedTime> all;
  for (const auto& [name, time] : by_name) all.push_back(time);
  std::ranges::sort(all, std::ranges::greater{}, &NamedTime::seconds);
  return all;
}

void add(std::map<std::string, NamedTime>& by_name, const profiler::KinetoEvent& event) {
  NamedTime& time = by_name[event.name()];
  time.name = event.name();
  time.calls += 1;
  time.seconds += static_cast<double>(event.durationNs()) * kNanosecond;
}

// Spans may overlap: those of several streams, and those of operations within others.
void add_gaps(std::vector<Span> spans, KernelTimes& times) {
  if (spans.empty()) return;
  std::ranges::sort(spans, {}, &Span::begin_ns);
  const uint64_t begin = spans.front().begin_ns;
  uint64_t end = begin;
  double idle = 0;
  for (const Span& span : spans) {
    if (span.begin_ns > end) {
      const double gap = static_cast<double>(span.begin_ns - end) * kNanosecond;
      idle += gap;
      if (gap > kGapSeconds) {
        times.gaps += 1;
        times.gap_seconds += gap;
        times.longest_gap_seconds = std::max(times.longest_gap_seconds, gap);
      }
    }
    end = std::max(end, span.end_ns);
  }
  times.seconds = static_cast<double>(end - begin) * kNanosecond;
  times.busy_seconds = times.seconds - idle;
}

double share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

void add_lines(std::string& text, const std::vector<NamedTime>& all, size_t most, double whole) {
  for (size_t i = 0; i < std::min(most, all.size()); ++i)
    text += fmt::format("{:>8}{:>12.6f}{:>8.1f}%  {}\n", all[i].calls, all[i].seconds,
                        share(all[i].seconds, whole), all[i].name.substr(0, kShownLetters));
  if (all.size() <= most) return;
  NamedTime rest;
  for (size_t i = most; i < all.size(); ++i) {
    rest.calls += all[i].calls;
    rest.seconds += all[i].seconds;
  }
  text += fmt::format("{:>8}{:>12.6f}{:>8.1f}%  {} others\n", rest.calls, rest.seconds,
                      share(rest.seconds, whole), all.size() - most);
}

}  // namespace

KernelTimes kernel_times(c10::Device device, const std::function<void()>& work) {
  using torch::profiler::impl::ActivityType;
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  const std::set<ActivityType> activities = {device.is_cpu() ? ActivityType::CPU
                                                             : ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(
      config, activities,
      {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION, at::RecordScope::USER_SCOPE});
  work();
  const auto result = profiler::disableProfiler();

  KernelTimes times;
  std::map<std::string, NamedTime> kernels, host_calls;
  std::vector<Span> spans;
  for (const profiler::KinetoEvent& event : result->events()) {
    if (event.deviceType() == device.type()) {
      add(kernels, event);
      spans.push_back({event.startNs(), event.endNs()});
    } else {
      add(host_calls, event);
    }
  }
  times.kernels = by_time(kernels);
  times.host_calls = by_time(host_calls);
  add_gaps(std::move(spans), times);
  return times;
}

std::string kernel_table(const KernelTimes& times) {
  int64_t launches = 0;
  for (const NamedTime& kernel : times.kernels) launches += kernel.calls;
  std::string text = fmt::format(
      "kernels: {} in {:.6f} s, of which one runs in {:.6f} s ({:.1f} %); {} gaps above {:.0f} us "
      "take {:.6f} s ({:.1f} %), the longest {:.1f} us\n",
      launches, times.seconds, times.busy_seconds, share(times.busy_seconds, times.seconds),
      times.gaps, kGapSeconds * 1e6, times.gap_seconds, share(times.gap_seconds, times.seconds),
      times.longest_gap_seconds * 1e6);
  text += fmt::format("{:>8}{:>12}{:>9}  kernel\n", "calls", "seconds", "share");
  add_lines(text, times.kernels, kShownKernels, times.seconds);
  if (times.host_calls.empty()) return text;
  text += fmt::format("{:>8}{:>12}{:>9}  call of the host\n", "calls", "seconds", "share");
  add_lines(text, times.host_calls, kShownCalls, times.seconds);
  return text;
}

}  // namespace qlora::bench
