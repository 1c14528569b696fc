#include "base/path_error.h"

#include <array>
#include <cerrno>
#include <string_view>

namespace qlora {

bool is_wrong_path(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
      return true;
    default:
      return false;
  }
}

std::string sentence_of(const std::filesystem::filesystem_error& error) {
  struct Operation {
    std::string_view name, done;
  };
  // As libstdc++ names what writes. Everything else looks at something.
  constexpr std::array<Operation, 7> kWriting = {{{"cannot remove", "removed"},
                                                  {"cannot rename", "put in place"},
                                                  {"cannot create", "created"},
                                                  {"cannot copy", "copied"},
                                                  {"cannot resize", "resized"},
                                                  {"cannot set permissions", "given its mode"},
                                                  {"cannot set file time", "given its time"}}};
  const std::string_view what = error.what();
  std::string_view done = "read";
  for (const Operation& operation : kWriting)
    if (what.find(": " + std::string(operation.name)) != std::string_view::npos)
      done = operation.done;
  const auto& path = error.path2().empty() ? error.path1() : error.path2();
  return fmt::format("{} cannot be {}: {}", path.empty() ? "a path" : path.string(), done,
                     error.code().message());
}

}  // namespace qlora
