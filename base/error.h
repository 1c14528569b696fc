// Error types. Each message is one sentence that says what must hold, what was found and how to fix
// it. cli/main.cpp holds the only catch and turns the type into the exit code of the command line.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace qlora {

// A broken contract or a failing machine: exit code 1.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The recipe or the command line is wrong: exit code 2.
struct ConfigError : Error {
  using Error::Error;
};
// A file is not what it must be (names the file, tensor or row, and the offset): exit code 2.
struct FormatError : Error {
  using Error::Error;
};
// The disk or the operating system refused: exit code 1.
struct IoError : Error {
  using Error::Error;
};
// Training left the finite numbers: exit code 3.
struct DivergenceError : Error {
  using Error::Error;
};

// Throws E with a formatted sentence: fail<FormatError>("{}: no tensor '{}'", path, name).
template <typename E, typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw E(fmt::format(format, std::forward<Args>(args)...));
}

// Throws Error unless the contract holds.
template <typename... Args>
void check(bool holds, fmt::format_string<Args...> format, Args&&... args) {
  if (!holds) throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qlora
