#include "base/progress_line.h"

#include <algorithm>

#include "base/terminal.h"

namespace qlora {
namespace {

constexpr const char* kToBeginOfEmptyLine = "\r\x1b[K";
constexpr size_t kShortestPhase = 12;  // in columns: of fewer nothing could be told

// The line in at most so many columns. Its numbers stand behind the last ": " and stay: what is
// shortened is the phase, in the middle, where it is the path of a file.
std::string fitting(const std::string& text, size_t columns) {
  if (columns_of_text(text) <= columns) return text;
  const size_t phase = std::min(text.rfind(": "), text.size());
  const size_t numbers = columns_of_text(text.substr(phase));
  const size_t room = std::max(columns - std::min(columns, numbers), kShortestPhase);
  const std::string line = without_middle(text.substr(0, phase), room) + text.substr(phase);
  return std::string(beginning_in_columns(line, columns));
}

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
  std::string line = width_ > 0 ? fitting(text, width_ - 1) : text;
  if (line == shown_) return;
  write_(kToBeginOfEmptyLine + line);
  shown_ = std::move(line);
}

void ProgressLine::take_away() {
  if (shown_.empty()) return;
  write_(kToBeginOfEmptyLine);
  shown_.clear();
}

}  // namespace qlora
