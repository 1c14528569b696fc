// System calls that a signal may interrupt.
#pragma once

#include <cerrno>

namespace qlora::io {

// What `call()` gives, made again as long as a signal has cut it short (EINTR): network file
// systems let open() and fsync() be interrupted, also where the handler asks for a restart.
template <typename Call>
auto repeated(const Call& call) {
  while (true)
    if (const auto result = call(); result >= 0 || errno != EINTR) return result;
}

}  // namespace qlora::io
