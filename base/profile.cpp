#include "base/profile.h"

#include <fmt/format.h>
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <map>

namespace qlora {
namespace {

struct OpenScope {
  const char* stage;
  int64_t begin_ns;
};

struct Profile {
  std::function<void()> synchronize;
  std::vector<OpenScope> open;
  std::vector<ProfileEvent> events;
  int64_t start_ns = 0, stop_ns = 0;
  ProfileClock clock = ProfileClock::kWall;
};

Profile& profile() {
  static Profile one;
  return one;
}

int64_t now_ns() {
  timespec now;
  clock_gettime(profile().clock == ProfileClock::kWall ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID,
                &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

double seconds_in_profile() {
  return static_cast<double>(profile().stop_ns - profile().start_ns) * 1e-9;
}

}  // namespace

namespace profile_detail {

std::atomic<bool> active = false;

void begin(const char* stage) {
  if (omp_in_parallel() != 0) return;
  Profile& p = profile();
  if (p.synchronize) p.synchronize();
  p.open.push_back({stage, now_ns()});
}

void end() {
  if (omp_in_parallel() != 0) return;
  Profile& p = profile();
  if (p.open.empty()) return;  // begun before the profile was
  if (p.synchronize) p.synchronize();
  const OpenScope scope = p.open.back();
  p.open.pop_back();
  p.events.push_back({scope.stage, scope.begin_ns, now_ns(), static_cast<int>(p.open.size())});
}

}  // namespace profile_detail

void start_profile(std::function<void()> synchronize, ProfileClock clock) {
  profile() =
      Profile{.synchronize = std::move(synchronize), .open = {}, .events = {}, .clock = clock};
  profile().start_ns = now_ns();
  profile_detail::active = true;
}

void stop_profile() {
  profile_detail::active = false;
  profile().stop_ns = now_ns();
}

const std::vector<ProfileEvent>& profile_events() { return profile().events; }

std::vector<StageTime> stage_times() {
  std::map<std::string, StageTime> by_name;
  std::vector<int64_t> inside(1, 0);  // by depth: time of the scopes that ended within the next one
  for (const ProfileEvent& event : profile().events) {
    const auto depth = static_cast<size_t>(event.depth);
    inside.resize(std::max(inside.size(), depth + 2), 0);
    const int64_t whole = event.end_ns - event.begin_ns;
    StageTime& stage = by_name[event.stage];
    stage.stage = event.stage;
    stage.calls += 1;
    stage.seconds += static_cast<double>(whole - inside[depth + 1]) * 1e-9;
    inside[depth + 1] = 0;
    inside[depth] += whole;
  }
  std::vector<StageTime> all;
  for (auto& [name, stage] : by_name) all.push_back(std::move(stage));
  std::ranges::sort(all, std::ranges::greater{}, &StageTime::seconds);
  return all;
}

std::string profile_table() {
  const double total = seconds_in_profile();
  double covered = 0;
  std::string text = fmt::format("{:<20}{:>8}{:>12}{:>9}\n", "stage", "calls", "seconds", "share");
  const auto row = [&](const std::string& stage, const std::string& calls, double seconds) {
    text += fmt::format("{:<20}{:>8}{:>12.4f}{:>8.1f}%\n", stage, calls, seconds,
                        total > 0 ? 100 * seconds / total : 0.0);
  };
  for (const StageTime& stage : stage_times()) {
    row(stage.stage, std::to_string(stage.calls), stage.seconds);
    covered += stage.seconds;
  }
  row("(between stages)", "", total - covered);
  row("all", "", total);
  return text;
}

std::string chrome_trace() {
  std::string text = "{\"traceEvents\":[";
  const char* separator = "\n";
  for (const ProfileEvent& event : profile().events) {
    text += separator;
    text +=
        fmt::format(R"({{"name":"{}","ph":"X","pid":1,"tid":1,"ts":{:.3f},"dur":{:.3f}}})",
                    event.stage, static_cast<double>(event.begin_ns - profile().start_ns) * 1e-3,
                    static_cast<double>(event.end_ns - event.begin_ns) * 1e-3);
    separator = ",\n";
  }
  return text + "\n],\"displayTimeUnit\":\"ms\"}\n";
}

}  // namespace qlora
