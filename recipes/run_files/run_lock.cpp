#include "recipes/run_files/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "io/repeated.h"

namespace qlora::recipes {
namespace {

struct OpenFile {
  int number;
  ~OpenFile() {
    if (number >= 0) close(number);
  }
};

[[noreturn]] void fail_on_other(const std::string& directory) {
  fail<ConfigError>("output.dir: another process is running in {}; stop it or choose another one",
                    directory);
}

// Null if it cannot be locked, other than by another process.
std::shared_ptr<const void> try_to_lock(const std::string& path, int flags,
                                        const std::string& directory, TakeLock take_lock) {
  const std::shared_ptr<const OpenFile> file(
      new OpenFile{io::repeated([&] { return open(path.c_str(), flags | O_CLOEXEC, 0666); })});
  if (file->number < 0) return nullptr;
  if (io::repeated([&] { return take_lock(file->number, LOCK_EX | LOCK_NB); }) == 0) return file;
  if (errno != EWOULDBLOCK) return nullptr;
  fail_on_other(directory);
}

// A socket that is bound to an abstract name of the directory, by device and inode: of the machine
// (or container) one process can have it, and it goes with the process. Null where there are none.
std::shared_ptr<const void> take_name(const std::string& directory) {
  struct stat status = {};
  if (stat(directory.c_str(), &status) != 0) return nullptr;
  const std::shared_ptr<const OpenFile> file(
      new OpenFile{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)});
  if (file->number < 0) return nullptr;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string name = fmt::format("qlora-run-{}-{}", status.st_dev, status.st_ino);
  name.copy(address.sun_path + 1, sizeof(address.sun_path) - 1);  // behind a NUL: no file
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (bind(file->number, reinterpret_cast<const sockaddr*>(&address), size) == 0) return file;
  if (errno != EADDRINUSE) return nullptr;
  fail_on_other(directory);
}

}  // namespace

RunLock lock_run(const std::string& directory) { return lock_run(directory, flock); }

RunLock lock_run(const std::string& directory, TakeLock take_lock) {
  if (access(directory.c_str(), W_OK | X_OK) != 0)
    fail<IoError>("output.dir: {} cannot be written to: {}", directory, std::strerror(errno));
  auto lock = try_to_lock(directory, O_RDONLY | O_DIRECTORY, directory, take_lock);
  if (!lock)
    lock = try_to_lock(directory + "/" + kLockFile, O_RDWR | O_CREAT, directory, take_lock);
  if (lock) return {lock, true};
  lock = take_name(directory);
  log::warning("output.dir: the file system of {} has no locks; {}", directory,
               lock ? "a second run on this machine is refused, but make sure that no process on "
                      "another machine writes there"
                    : "make sure that no second process writes there");
  return {lock, false};
}

}  // namespace qlora::recipes
