// Files and directories that are complete or absent, whatever kills the program: written beside
// their place, flushed to disk, then renamed into it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::io {

// Replaces or creates the file. IoError (path, reason) leaves the old one as it was.
void write_file_atomically(const std::string& path, std::string_view bytes);

// A directory in the making: fill path(), then commit(). Without commit the destructor removes it;
// a kill leaves "<name>.partial-<pid>" behind, which nothing takes for the real one.
class AtomicDirectory {
 public:
  enum class Existing { kRefuse, kReplace };
  // `target` must not exist, or be an empty directory, unless it is to be replaced. Parents are
  // made. IoError, ConfigError.
  explicit AtomicDirectory(const std::string& target, Existing existing = Existing::kRefuse);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::string& path() const { return path_; }
  // fsync of every file and directory in it, rename, fsync of the parent. What is replaced stays
  // in its place until then.
  void commit();

 private:
  std::string target_, path_;
  bool replace_, committed_ = false;
};

// Removes what dead processes left half made in `directory` ("<name>.partial-<pid>"); gives the
// names. Call it before making anything there: this process's own number counts as a dead one's.
// A directory that is not there holds none. IoError.
std::vector<std::string> remove_partial_directories(const std::string& directory);

// Renames a directory to "<name>.old.partial-<pid>" and gives that path: on its way out, it is
// taken for the real one no more, and remove_partial_directories() finishes what a kill interrupts.
// IoError.
std::string move_aside(const std::string& path);

// IoError unless the file system of `path` (or of its nearest existing parent) has `bytes` free:
// says what is needed for `purpose` and what there is.
void require_free_space(const std::string& path, uint64_t bytes, const std::string& purpose);

}  // namespace qlora::io
