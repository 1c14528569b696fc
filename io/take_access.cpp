#include "io/take_access.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <vector>

namespace qlora::io {
namespace {

constexpr uid_t kAsItIs = static_cast<uid_t>(-1);  // of chown(2)

bool take_group(int file, gid_t group) {
  struct stat status {};
  if (fstat(file, &status) == 0 && status.st_gid == group) return true;
  return fchown(file, kAsItIs, group) == 0;
}

// An extended attribute is copied, or removed where the older one has none. False if it is there
// and cannot be copied.
bool take_attribute(int file, const std::string& path, const char* name) {
  const ssize_t size = getxattr(path.c_str(), name, nullptr, 0);
  if (size <= 0) {
    fremovexattr(file, name);
    return true;
  }
  std::vector<char> value(static_cast<size_t>(size));
  return getxattr(path.c_str(), name, value.data(), value.size()) == size &&
         fsetxattr(file, name, value.data(), value.size(), 0) == 0;
}

// (Linux: acl(5).)
bool take_lists(int file, const std::string& path, bool is_directory) {
  const bool access = take_attribute(file, path, "system.posix_acl_access");
  const bool inherited = !is_directory || take_attribute(file, path, "system.posix_acl_default");
  return access && inherited;
}

// Where there are lists, these bits are the most that any of their groups and users may do.
mode_t with_group_as_all(mode_t mode) { return (mode & 01707) | (mode & (mode & 7) << 3); }

}  // namespace

void take_access(int file, const std::string& path) {
  struct stat older {};
  if (lstat(path.c_str(), &older) != 0) return;
  const bool is_directory = S_ISDIR(older.st_mode);
  if (!is_directory && !S_ISREG(older.st_mode)) return;
  mode_t mode = older.st_mode & (is_directory ? 07777 : 0777);
  const bool has_group = take_group(file, older.st_gid);
  const bool has_lists = take_lists(file, path, is_directory);
  if (!has_group || !has_lists) mode = with_group_as_all(mode);
  fchmod(file, mode | (is_directory ? S_IRWXU : 0));
  [[maybe_unused]] const int allowed = fchown(file, older.st_uid, kAsItIs);  // to root alone
}

}  // namespace qlora::io
