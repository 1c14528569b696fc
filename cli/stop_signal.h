// SIGINT and SIGTERM as a wish to stop.
#pragma once

#include <atomic>

namespace qlora::cli {

// Thrown when a command ended early because of a signal, its work saved: exit code 130.
struct Interrupted {};

// Installs the handlers and gives the flag that the first signal sets; a second SIGINT ends the
// process at once with exit code 130. Commands that write a directory obey it (base/stop.h), so
// that nothing half-written stays; those that only read keep the system's own way, which ends them
// at once.
const std::atomic<bool>& watch_stop_signals();

}  // namespace qlora::cli
