#include "base/short_waits.h"

#include <sys/auxv.h>
#include <unistd.h>

#include <cstddef>

namespace qlora {
namespace {

// A sanitizer's memory is not there yet when these functions run.
#define QLORA_BEFORE_SANITIZERS [[gnu::no_sanitize("address", "undefined")]]

QLORA_BEFORE_SANITIZERS bool sets(const char* entry, const char* variable) {
  while (*variable != '\0' && *entry == *variable) ++entry, ++variable;
  return *variable == '\0' && *entry == '=';
}

}  // namespace

QLORA_BEFORE_SANITIZERS void restart_with_short_waits(int, char** argv, char** environment) {
  size_t count = 0;
  for (; environment[count] != nullptr; ++count)
    if (sets(environment[count], "OMP_WAIT_POLICY") || sets(environment[count], "GOMP_SPINCOUNT"))
      return;
  // Where the loader was called with the program as its argument, /proc/self/exe is the loader.
  if (getauxval(AT_BASE) == 0) return;
  auto** with_setting = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
  for (size_t i = 0; i < count; ++i) with_setting[i] = environment[i];
  with_setting[count] = const_cast<char*>(kShortWaits);
  with_setting[count + 1] = nullptr;
  // By its own path, after which the kernel names the process.
  char path[4096];
  if (const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1); length > 0) {
    path[length] = '\0';
    execve(path, argv, with_setting);
  }
  execve("/proc/self/exe", argv, with_setting);
}

}  // namespace qlora
