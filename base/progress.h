// What the program is doing, for a person who waits: a phase says its name, how many units it has
// and when one is done.
//
//   Progress progress("tokenizing rows.jsonl", num_rows, "rows");
//   for (...) { ...; progress.advance(); }
//
// A phase that ends within two seconds is never seen. A longer one shows itself on stderr: on a
// terminal as one line that is rewritten and goes away with the phase, elsewhere as a line of its
// own where ten seconds have passed without any (base/progress_line.h). It is shown by a thread
// that wakes a few times a second, so that a unit that takes minutes does not look hung either.
// Of phases within phases the innermost that has lasted so long is shown.
//
// Between two units a phase is also left when a stop is wanted (base/stop.h). A child process of
// fork() shows no phase.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>

#include "base/stop.h"
#include "base/stopwatch.h"

namespace qlora {

// Begins and ends on one thread, inside of the phases that are open there.
class Progress {
 public:
  // `total` 0: unknown. `unit` in the plural; empty: the phase has no units that could be counted.
  explicit Progress(std::string phase, int64_t total = 0, std::string unit = "");
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Units are done, on whatever thread.
  void count(int64_t units = 1) { done_.fetch_add(units, std::memory_order_relaxed); }
  // The same, and leaves the phase by Stopped if a stop is wanted, unless that was the last unit.
  void advance(int64_t units = 1);
  // Leaves by Stopped if a stop is wanted.
  void leave_if_stop_wanted() const;

  const std::string& phase() const { return phase_; }
  double seconds() const { return watch_.seconds(); }
  // "tokenizing rows.jsonl: 120 of 600 rows (20 %), 0:04, 0:16 left"
  std::string to_text() const;

 private:
  const std::string phase_, unit_;
  const int64_t total_;
  std::atomic<int64_t> done_{0};
  const Stopwatch watch_;
  const int exceptions_ = std::uncaught_exceptions();  // when it began
};

// The name of the innermost phase that an exception left, until another phase begins or ends well:
// for whoever reports the exception. Empty if there is none.
std::string phase_left_by_exception();

// "phase: 120 of 600 rows (20 %), 0:04, 0:16 left"; what is left is guessed once a tenth is done.
std::string progress_text(const std::string& phase, int64_t done, int64_t total,
                          const std::string& unit, double seconds);

// "0:42", "12:05", "3:04:05"
std::string clock_text(double seconds);

// From now on no phase of this process shows itself.
void hide_progress();

// Takes the line that is being rewritten away and keeps it away as long as the lock is held: for
// other lines on stderr.
[[nodiscard]] std::unique_lock<std::mutex> hold_progress_line();

}  // namespace qlora
