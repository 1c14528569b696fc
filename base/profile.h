// Where the time of a step goes. A scope at the start of each stage of the work costs one branch
// while no one looks; while a profile is taken it notes its begin and end.
//
//   void f() { const ProfileScope scope("attention"); ... }
//
// Stages nest: the table counts a stage's own time, without what the stages inside it took. Scopes
// may be on several threads, but only on one at a time: autograd's backward pass on a GPU has a
// thread of its own, for which the caller waits. Those inside a parallel region are not noted:
// their time belongs to the stage that opened it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace qlora {

struct ProfileEvent {
  const char* stage;  // a string literal
  int64_t begin_ns, end_ns;
  int depth;  // 0: outermost
};

// Of one stage, over a whole profile.
struct StageTime {
  std::string stage;
  int64_t calls = 0;
  double seconds = 0;  // of its own
};

// Starts over. `synchronize`, if given, is called at both ends of each scope: a device that works
// behind the program's back is waited for there.
// kProcessor: time that the process's threads spent on processors instead of time on the clock; on
// a machine that others use too, with one thread, the steadier figure.
enum class ProfileClock { kWall, kProcessor };
void start_profile(std::function<void()> synchronize = {},
                   ProfileClock clock = ProfileClock::kWall);
void stop_profile();

const std::vector<ProfileEvent>& profile_events();  // in the order in which they ended
// The stage that takes most first.
std::vector<StageTime> stage_times();
// Rows of "stage  calls  seconds  share", the share of the time between start and stop; last what
// no stage covers.
std::string profile_table();
// The text of a file for chrome://tracing and Perfetto.
std::string chrome_trace();

namespace profile_detail {
extern std::atomic<bool> active;
void begin(const char* stage);
void end();
}  // namespace profile_detail

class ProfileScope {
 public:
  explicit ProfileScope(const char* stage)
      : active_(profile_detail::active.load(std::memory_order_relaxed)) {
    if (active_) profile_detail::begin(stage);
  }
  ~ProfileScope() {
    if (active_) profile_detail::end();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  bool active_;
};

}  // namespace qlora
