// A directory that this process may not change, also where the tests run as root.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace qlora::test {

// While it lives, root acts as a user who owns nothing; others stay who they are.
class AnotherUser {
 public:
  AnotherUser() : was_root_(geteuid() == 0) {
    if (was_root_) is_other_ = seteuid(65534) == 0;
  }
  ~AnotherUser() {
    if (is_other_) is_other_ = seteuid(0) != 0;
  }
  AnotherUser(const AnotherUser&) = delete;
  AnotherUser& operator=(const AnotherUser&) = delete;

  // Whether this one may write to `directory`, and not to everything. The directories above it are
  // not the test's: where they are closed to others, the test is skipped.
  bool can_work_in(const std::string& directory) const {
    return (is_other_ || !was_root_) &&
           faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) == 0;
  }

 private:
  bool was_root_, is_other_ = false;
};

inline void open_to_all(const std::string& path) { chmod(path.c_str(), 0777); }
inline void close_to_all(const std::string& path) { chmod(path.c_str(), 0555); }

}  // namespace qlora::test
