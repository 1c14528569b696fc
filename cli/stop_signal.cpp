#include "cli/stop_signal.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "cli/standard_streams.h"

namespace qlora::cli {
namespace {

constexpr int kExitInterrupted = 130;
std::atomic<bool> stop_wanted{false}, tells{true};
static_assert(std::atomic<bool>::is_always_lock_free);

// A terminal that closes may send SIGHUP twice, a batch system SIGTERM: only who presses Ctrl-C
// again means it.
void on_signal(int signal) {
  const int error = errno;
  if (stop_wanted.exchange(true)) {
    if (signal == SIGINT) _exit(kExitInterrupted);
  } else if (tells) {
    constexpr char kMessage[] = "\nstopping; press Ctrl-C again to stop at once, unsaved\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  }
  errno = error;
}

bool is_ignored(int signal) {
  struct sigaction now {};
  return sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

// Gives what was done with each signal before.
std::vector<std::pair<int, struct sigaction>> watch() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // reads and writes go on; the work looks between two of them
  std::vector<std::pair<int, struct sigaction>> before;
  // mpirun hands on SIGUSR1. Batch systems send one of the last two ahead of the end; SIGXCPU comes
  // every second from then on.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    if ((signal == SIGHUP || signal == SIGINT) && is_ignored(signal)) continue;
    struct sigaction old {};
    if (sigaction(signal, &action, &old) == 0) before.emplace_back(signal, old);
  }
  return before;
}

}  // namespace

const std::atomic<bool>& watch_stop_signals(bool speaks) {
  tells = speaks;
  watch();
  std::signal(SIGPIPE, SIG_IGN);
  return stop_wanted;
}

StopSignalsWatched::StopSignalsWatched() : before_(watch()), obey_(stop_wanted) {}

StopSignalsWatched::~StopSignalsWatched() {
  for (const auto& [signal, action] : before_) sigaction(signal, &action, nullptr);
}

void StopSignalsWatched::leave_behind_rows() {
  if (qlora::stop_wanted()) throw Stopped{"with the rows read", 0, 0, "", true};
}

void end_without_reader() { std::signal(SIGPIPE, SIG_DFL); }

void outlive_file_size_limit() { std::signal(SIGXFSZ, SIG_IGN); }

void print_result(std::string_view line) { put_out(line); }

}  // namespace qlora::cli
