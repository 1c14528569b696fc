#include "cli/stop_signal.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

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

}  // namespace

const std::atomic<bool>& watch_stop_signals(bool speaks) {
  tells = speaks;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // reads and writes go on; the work looks between two of them
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);  // which mpirun hands on
  // Batch systems send one of these ahead of the end; SIGXCPU comes every second from then on.
  sigaction(SIGUSR2, &action, nullptr);
  sigaction(SIGXCPU, &action, nullptr);
  if (!is_ignored(SIGHUP)) sigaction(SIGHUP, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return stop_wanted;
}

void end_without_reader() { std::signal(SIGPIPE, SIG_DFL); }

void outlive_file_size_limit() { std::signal(SIGXFSZ, SIG_IGN); }

void print_result(std::string_view line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

}  // namespace qlora::cli
