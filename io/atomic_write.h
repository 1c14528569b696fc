// Files and directories that are complete or absent, whatever kills the program: written beside
// their place under a name of their own, "<name>.partial-<random>", flushed to disk, then renamed
// into it. A directory that is replaced changes places with the new one in one call.
//
// The maker of a file or directory holds a lock (flock) on it until then, so that whoever finds it
// knows whether it is still being filled, from another container or host too. Making one removes
// what dead makers left of the same name. What takes the place of something older is for the same
// users (io/take_access.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::io {

// Replaces or creates the file. IoError (path, reason) leaves the old one as it was.
void write_file_atomically(const std::string& path, std::string_view bytes);

// Creates the file. ConfigError if anything is at `path`, also what another process put there in
// the meantime; IoError.
void write_new_file(const std::string& path, std::string_view bytes);

// Makes the directory and what is missing above it; each is on disk with its name.
// ConfigError if a file has one of their names; IoError.
void make_directories(const std::string& path);

// Makes or replaces the symbolic link `path` -> `target` in one move. False on a file system that
// has no links (exFAT, many network shares), of which symlink(2) says EPERM. IoError.
[[nodiscard]] bool replace_link(const std::string& path, const std::string& target);

// ConfigError unless nothing lies at `path` and a directory can be made there (require_place() of
// io/replaceable.h), or an empty directory that can be replaced: what an AtomicDirectory asks, for
// those who work long before they make one.
void require_free_directory(const std::string& path);

// A directory in the making: fill path(), then commit(). Without commit the destructor removes it;
// a kill leaves "<name>.partial-<random>" behind, which nothing takes for the real one.
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
  // fsync of every file and directory in it, then the place's old content and the new one are
  // exchanged, fsync of the parent. A file system that cannot exchange gets two renames; after a
  // kill between them the old content is at "<name>.before-replacement-<random>", see
  // recover_replaced(). IoError as well if a file that is mapped, which the content may have been
  // made of, has been changed since it was opened (io/live_mappings.h). Old content that cannot be
  // removed then is a warning.
  void commit();

 private:
  std::string target_, path_;
  bool replace_, committed_ = false;
  int lock_ = -1;
};

// Finishes replacements in `directory`, of names that are `ours`, that a kill interrupted between
// two renames: the old content gets its name back, or is removed if the new one has it. For the one
// process that may write to these names. A directory that is not there holds none. IoError.
void recover_replaced(const std::string& directory,
                      const std::function<bool(const std::string& name)>& ours);

// Removes what was left half made in `directory`, "<name>.partial-<random>" with a name that is
// `ours`; gives what was removed. For the one process that may write to these names (it holds the
// lock of a run); what another process has locked is spared all the same. A directory that is not
// there holds none. IoError, of the first that cannot be removed, once the others are gone.
std::vector<std::string> remove_partial(const std::string& directory,
                                        const std::function<bool(const std::string& name)>& ours);

// Removes what dead makers left half made in `directory`, "<name>.partial-<random>" with a name
// that is `ours`, and nothing of which it cannot be told that its maker is dead. For places that
// many processes write to. What may not be listed or removed stays.
void remove_abandoned(const std::string& directory,
                      const std::function<bool(const std::string& name)>& ours);

// Renames a file or directory, on disk in both places. IoError.
void move(const std::string& from, const std::string& to);

// Renames a directory to "<name>.partial-<random>" and gives that path: on its way out, it is taken
// for the real one no more, and remove_partial() finishes what a kill interrupts. IoError.
std::string move_aside(const std::string& path);

// Removes a file, or a link and not what it leads to; gone from the disk too. IoError.
void remove_file(const std::string& path);

// Removes a file, or a directory with all that is in it; nothing there is no error. IoError.
void remove_tree(const std::string& path);

// IoError unless the file system of `path` (or of its nearest existing parent) has `bytes` free:
// says what is needed for `purpose` and what there is.
void require_free_space(const std::string& path, uint64_t bytes, const std::string& purpose);

}  // namespace qlora::io
