#include "io/replaceable.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/path_error.h"
#include "io/names_beside.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

bool is_taken(const std::string& path) {
  std::error_code status;
  return fs::exists(fs::symlink_status(path, status));
}

bool is_empty_or_begins_with(const std::string& path, std::string_view head) {
  std::error_code status;
  if (!fs::is_regular_file(fs::symlink_status(path, status))) return false;
  if (fs::file_size(path, status) == 0 && !status) return true;
  std::string found(head.size(), '\0');
  std::ifstream(path, std::ios::binary).read(found.data(), static_cast<int64_t>(found.size()));
  return found == head;
}

// STATX_ATTR_MOUNT_ROOT of linux/stat.h, which headers before 5.8 do not have.
constexpr uint64_t kMountRoot = 0x2000;

// Also of one that shows another directory of the same file system.
bool is_mount_point(const std::string& path) {
  struct statx status {};
  return statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, 0, &status) == 0 &&
         (status.stx_attributes & status.stx_attributes_mask & kMountRoot) != 0;
}

struct stat status_of(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) fail_on_path(errno, "{} cannot be examined", path);
  return status;
}

}  // namespace

void require_replaceable(const std::string& path, std::string_view head, std::string_view what) {
  if (!is_taken(path) || is_empty_or_begins_with(path, head)) return;
  fail<ConfigError>("{} exists and is no {} of this program; name another file", path, what);
}

void require_new(const std::string& path) {
  if (is_taken(path)) fail<ConfigError>("{} exists; name another file", path);
}

void require_place(const std::string& path) {
  constexpr size_t kBesideBytes = kReplaced.size() + kRandomDigits;  // the longest mark
  std::error_code status;  // also of names that are too long, which are not there either
  // With links followed: ".." of one is what is above its end.
  fs::path place = fs::weakly_canonical(fs::absolute(path), status);
  if (status) place = fs::absolute(path).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();  // of a slash at the end
  fs::path above = place.parent_path();
  while (!fs::exists(above, status) && above.has_relative_path()) above = above.parent_path();
  if (!fs::is_directory(above, status))
    fail<ConfigError>("{} must be a directory, but is a file; choose another path or remove it",
                      above.string());
  for (const auto& [access_to, lacking] : {std::pair(W_OK, "written to"), {X_OK, "entered"}})
    if (access(above.c_str(), access_to) != 0)
      fail_on_path(errno, "{} cannot be made; name another place, or see to it that {} may be {}",
                   path, above.string(), lacking);
  const long longest = pathconf(above.c_str(), _PC_NAME_MAX);
  const fs::path made = place.lexically_relative(above);
  for (auto name = made.begin(); longest > 0 && name != made.end(); ++name) {
    const size_t taken = std::next(name) == made.end() ? kBesideBytes : 0;
    if (name->native().size() + taken > static_cast<size_t>(longest))
      fail<ConfigError>("the name {} must have at most {} bytes, found {}; name another place",
                        name->string(), static_cast<size_t>(longest) - taken,
                        name->native().size());
  }
}

std::string obstacle_to_replacing(const std::string& directory) {
  const fs::path path = directory;
  const std::string name = path.filename().string();
  if (name.empty() || name == "." || name == "..") return "has no name of its own";
  const std::string parent = path.has_parent_path() ? path.parent_path().string() : ".";
  const struct stat own = status_of(directory), above = status_of(parent + "/.");
  if (S_ISLNK(own.st_mode) || own.st_dev != above.st_dev || is_mount_point(directory))
    return "is a link or a mount point";
  if (access(parent.c_str(), W_OK | X_OK) != 0)
    return fmt::format("lies in {}, where nothing may be changed", parent);
  const uid_t user = geteuid();
  const bool is_his = user == 0 || user == own.st_uid || user == above.st_uid;
  if ((above.st_mode & S_ISVTX) != 0 && !is_his)
    return fmt::format("is another user's, and lies in {}, where each may change only his own",
                       parent);
  return "";
}

}  // namespace qlora::io
