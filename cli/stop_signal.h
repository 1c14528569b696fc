// SIGINT and SIGTERM as a wish to stop.
#pragma once

#include <atomic>

namespace qlora::cli {

// Thrown when a command ended early because of a signal, its work saved: exit code 130.
struct Interrupted {};

// Installs the handlers and gives the flag that the first signal sets; a second SIGINT ends the
// process at once with exit code 130.
const std::atomic<bool>& watch_stop_signals();

}  // namespace qlora::cli
