// Paths that lead nowhere or to the wrong kind of thing: the user's to mend, unlike a disk that
// fails.
#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include "base/error.h"

namespace qlora {

// Nothing is at the path, a file where a directory must be, or the reverse: exit code 2, where an
// IoError is otherwise 1.
struct PathError : IoError {
  using IoError::IoError;
};

// Whether an errno says that the path is wrong, and not that the disk or the system refuses.
bool is_wrong_path(int error);

// Throws PathError or IoError by what `error`, an errno, says. The sentence ends with its reason.
template <typename... Args>
[[noreturn]] void fail_on_path(int error, fmt::format_string<Args...> format, Args&&... args) {
  const std::string sentence =
      fmt::format(format, std::forward<Args>(args)...) + ": " + std::strerror(error);
  if (is_wrong_path(error)) throw PathError(sentence);
  throw IoError(sentence);
}

// The same sentence for what std::filesystem throws: "PATH cannot be read: Permission denied". Of
// two paths the one that was not had, or the new name of what was to be moved.
std::string sentence_of(const std::filesystem::filesystem_error& error);

}  // namespace qlora
