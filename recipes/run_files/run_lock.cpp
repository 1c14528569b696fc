#include "recipes/run_files/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/log.h"

namespace qlora::recipes {
namespace {

struct OpenFile {
  int number;
  ~OpenFile() {
    if (number >= 0) close(number);
  }
};

// Null if it cannot be locked, other than by another process.
std::shared_ptr<const void> try_to_lock(const std::string& path, int flags,
                                        const std::string& directory) {
  const std::shared_ptr<const OpenFile> file(
      new OpenFile{open(path.c_str(), flags | O_CLOEXEC, 0666)});
  if (file->number < 0) return nullptr;
  if (flock(file->number, LOCK_EX | LOCK_NB) == 0) return file;
  if (errno != EWOULDBLOCK) return nullptr;
  fail<ConfigError>("output.dir: another process is running in {}; stop it or choose another one",
                    directory);
}

}  // namespace

RunLock lock_run(const std::string& directory) {
  if (access(directory.c_str(), W_OK | X_OK) != 0)
    fail<IoError>("output.dir: {} cannot be written to: {}", directory, std::strerror(errno));
  auto lock = try_to_lock(directory, O_RDONLY | O_DIRECTORY, directory);
  if (!lock) lock = try_to_lock(directory + "/" + kLockFile, O_RDWR | O_CREAT, directory);
  if (!lock)
    log::warning(
        "output.dir: the file system of {} has no locks; make sure that no second process writes "
        "there",
        directory);
  return {lock, lock != nullptr};
}

}  // namespace qlora::recipes
