#include "cli/working_directory.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace qlora::cli {

// A sanitizer's memory is not there yet.
[[gnu::no_sanitize("address", "undefined")]] void require_working_directory(int, char**, char**) {
  char path[4096];
  if (syscall(SYS_getcwd, path, sizeof(path)) >= 0 || errno != ENOENT) return;
  constexpr char kSentence[] =
      "error: the working directory is removed; change to one that is there\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kSentence, sizeof(kSentence) - 1);
  _exit(2);
}

}  // namespace qlora::cli
