#include "base/progress_line.h"

namespace qlora {
namespace {

constexpr const char* kToBeginOfEmptyLine = "\r\x1b[K";

}  // namespace

void ProgressLine::show(const std::string& text, double phase_seconds, double now) {
  if (phase_seconds < kQuietSeconds) return take_away();
  if (!rewritten_) {
    if (now - last_line_ < kSecondsOfALine) return;
    last_line_ = now;
    write_(text + "\n");
    return;
  }
  // A full line would wrap, and only its last row could be rewritten.
  std::string fitting = text.substr(0, width_ > 0 ? width_ - 1 : std::string::npos);
  if (fitting == shown_) return;
  write_(kToBeginOfEmptyLine + fitting);
  shown_ = std::move(fitting);
}

void ProgressLine::take_away() {
  if (shown_.empty()) return;
  write_(kToBeginOfEmptyLine);
  shown_.clear();
}

}  // namespace qlora
