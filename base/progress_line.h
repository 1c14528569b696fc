// When and how a phase that takes long shows itself. Knows no clock: the caller says what time it
// is.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace qlora {

class ProgressLine {
 public:
  static constexpr double kQuietSeconds = 2;     // phases that end sooner are never seen
  static constexpr double kSecondsOfALine = 10;  // between lines, where lines stay
  using Write = std::function<void(std::string_view)>;

  // `rewritten`: the line is replaced in place, shortened to fewer than `width` columns, as a
  // terminal can; its numbers stay.
  ProgressLine(bool rewritten, size_t width, Write write)
      : rewritten_(rewritten), width_(width), write_(std::move(write)) {}

  // Of a phase that has gone on for so many seconds. `now` in seconds since whenever.
  void show(const std::string& text, double phase_seconds, double now);
  // Before anything else is written there, and when the phase has ended.
  void take_away();
  // Something else was written.
  void other_line(double now) { last_line_ = now; }

 private:
  bool rewritten_;
  size_t width_;
  Write write_;
  double last_line_ = -kSecondsOfALine;
  std::string shown_;  // on the terminal now
};

}  // namespace qlora
