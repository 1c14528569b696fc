#include "base/progress.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "base/progress_line.h"
#include "base/terminal.h"

namespace qlora {
namespace {

void write_to_stderr(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

// The open phases of the process and the thread that shows the innermost of them; one that is
// hidden from the start has no thread.
class Display {
 public:
  explicit Display(bool hidden)
      : hidden_(hidden),
        line_(isatty(STDERR_FILENO) != 0, terminal_width(stderr), write_to_stderr) {
    if (!hidden) thread_ = std::jthread([this](const std::stop_token& end) { watch(end); });
  }

  void hide() {
    const std::lock_guard lock(mutex_);
    hidden_ = true;
    line_.take_away();
  }

  void open(const Progress* phase) {
    const std::lock_guard lock(mutex_);
    left_.clear();
    if (hidden_) return;
    open_.push_back(phase);
    if (open_.size() == 1) opened_.notify_one();
  }

  void close(const Progress* phase, bool by_exception) {
    const std::lock_guard lock(mutex_);
    if (!by_exception)
      left_.clear();
    else if (left_.empty())  // the innermost is left first
      left_ = phase->phase();
    std::erase(open_, phase);
    line_.take_away();
  }

  std::string left() {
    const std::lock_guard lock(mutex_);
    return left_;
  }

  std::unique_lock<std::mutex> hold_line() {
    std::unique_lock lock(mutex_);
    line_.take_away();
    line_.other_line(clock_.seconds());
    return lock;
  }

 private:
  void watch(const std::stop_token& end) {
    constexpr auto kBetweenLooks = std::chrono::milliseconds(250);
    std::unique_lock lock(mutex_);
    while (!end.stop_requested()) {
      if (open_.empty()) {
        opened_.wait(lock, end, [this] { return !open_.empty(); });
      } else {
        opened_.wait_for(lock, end, kBetweenLooks, [] { return false; });
      }
      show();
    }
  }

  // A short phase inside of a long one does not hide it.
  void show() {
    const auto lasts = [](const Progress* phase) {
      return phase->seconds() >= ProgressLine::kQuietSeconds;
    };
    const auto inner = std::find_if(open_.rbegin(), open_.rend(), lasts);
    if (inner == open_.rend()) return line_.take_away();
    line_.show((*inner)->to_text(), (*inner)->seconds(), clock_.seconds());
  }

  std::mutex mutex_;
  std::condition_variable_any opened_;
  std::vector<const Progress*> open_;
  bool hidden_;
  std::string left_;  // the phase that an exception left
  ProgressLine line_;
  const Stopwatch clock_;
  std::jthread thread_;  // last: ends before the rest goes
};

// A child process of fork() has no thread that shows, and a copy of the mutex as whatever thread of
// its parent held it: it gets a hidden display of its own, and leaves the copy as it is, because
// its condition variable still counts a thread that waits.
Display& display() {
  static std::unique_ptr<Display> display = [] {
    pthread_atfork(nullptr, nullptr, [] {
      [[maybe_unused]] Display* of_parent = display.release();
      display = std::make_unique<Display>(true);
    });
    return std::make_unique<Display>(false);
  }();
  return *display;
}

}  // namespace

Progress::Progress(std::string phase, int64_t total, std::string unit)
    : phase_(std::move(phase)), unit_(std::move(unit)), total_(total) {
  display().open(this);
}

Progress::~Progress() { display().close(this, std::uncaught_exceptions() > exceptions_); }

void Progress::advance(int64_t units) {
  count(units);
  if (total_ == 0 || done_.load(std::memory_order_relaxed) < total_) leave_if_stop_wanted();
}

void Progress::leave_if_stop_wanted() const {
  if (stop_wanted()) throw Stopped{phase_, done_, total_, unit_};
}

std::string Progress::to_text() const {
  return progress_text(phase_, done_, total_, unit_, seconds());
}

std::string phase_left_by_exception() { return display().left(); }

std::string clock_text(double seconds) {
  const auto whole = std::llround(std::max(seconds, 0.0));
  const auto hours = whole / 3600, minutes = whole / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

std::string progress_text(const std::string& phase, int64_t done, int64_t total,
                          const std::string& unit, double seconds) {
  constexpr double kTenth = 0.1;
  const std::string elapsed = clock_text(seconds);
  if (unit.empty() || total == 1) return fmt::format("{}: {}", phase, elapsed);
  if (total == 0) return fmt::format("{}: {} {}, {}", phase, done, unit, elapsed);
  const double share = static_cast<double>(done) / static_cast<double>(total);
  std::string text =
      fmt::format("{}: {} of {} {} ({:.0f} %), {}", phase, done, total, unit, 100 * share, elapsed);
  if (share >= kTenth && share < 1)
    text += fmt::format(", {} left", clock_text(seconds * (1 - share) / share));
  return text;
}

void hide_progress() { display().hide(); }

std::unique_lock<std::mutex> hold_progress_line() { return display().hold_line(); }

}  // namespace qlora
