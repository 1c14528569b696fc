// SIGINT, SIGTERM, SIGHUP (the terminal is gone) and what batch systems send ahead of the end
// (SIGUSR1, SIGUSR2, SIGXCPU) as a wish to stop; output without a reader, and files without room.
#pragma once

#include <signal.h>

#include <atomic>
#include <string_view>
#include <utility>
#include <vector>

#include "base/stop.h"

namespace qlora::cli {

// Thrown when a command ended early because of a signal, its work saved: exit code 130.
struct Interrupted {};

// Installs the handlers and gives the flag that the first signal sets; a SIGINT after it ends the
// process at once with exit code 130. Commands that write a directory obey it (base/stop.h), so
// that nothing half-written stays; those that only read keep the system's own way, which ends them
// at once, but where they put tokenized rows into the data cache. A SIGHUP that is ignored already
// (nohup) stays ignored, and so does a SIGINT (a background job of a script).
//
// From then on output whose reader is gone (SIGPIPE: "| head") is dropped and the work goes on: a
// run has its log.txt.
//
// `speaks`: whether the terminal is told that the signal has arrived; of several ranks one does so.
const std::atomic<bool>& watch_stop_signals(bool speaks = true);

// For a part of a command that only reads otherwise: while it lives, the same signals but a
// reader's going are a wish to stop, which is obeyed; afterwards they are what they were before.
// Once the part is done leave_behind_rows() is to be called, for a signal that nothing has seen.
class StopSignalsWatched {
 public:
  StopSignalsWatched();
  ~StopSignalsWatched();
  StopSignalsWatched(const StopSignalsWatched&) = delete;
  StopSignalsWatched& operator=(const StopSignalsWatched&) = delete;

  // Of a part that put tokenized rows into the data cache: Stopped, which says that they are read.
  static void leave_behind_rows();

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
  ObeyStop obey_;
};

// Output without a reader ends the process without a word, as it does other programs, also where
// the one that started it ignores SIGPIPE. For the begin of the program: commands that print what
// they read have nothing to do without a reader.
void end_without_reader();

// A write beyond the size that a file may have (ulimit -f) fails as on a full disk, with a message
// and exit code 1, in place of ending the process without a word (SIGXFSZ). For the begin of the
// program.
void outlive_file_size_limit();

// A line on stdout for what is done and on the disk: the command goes on if it cannot be written,
// and it is no failure if nobody reads it.
void print_result(std::string_view line);

}  // namespace qlora::cli
