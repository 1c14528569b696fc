#include "cli/stop_signal.h"

#include <unistd.h>

#include <csignal>
#include <cstring>

namespace qlora::cli {
namespace {

constexpr int kExitInterrupted = 130;
std::atomic<bool> stop_wanted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int) {
  if (stop_wanted.exchange(true)) _exit(kExitInterrupted);
  constexpr char kMessage[] = "\nstopping; press Ctrl-C again to stop at once, unsaved\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
}

}  // namespace

const std::atomic<bool>& watch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // reads and writes go on; the work looks between two of them
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return stop_wanted;
}

}  // namespace qlora::cli
