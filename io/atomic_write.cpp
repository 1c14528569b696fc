#include "io/atomic_write.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/path_error.h"
#include "base/progress.h"
#include "io/live_mappings.h"
#include "io/names_beside.h"
#include "io/output_file.h"
#include "io/repeated.h"
#include "io/replaceable.h"
#include "io/take_access.h"

namespace qlora::io {
namespace fs = std::filesystem;

void remove_tree(const std::string& path) {
  std::error_code status;
  fs::remove_all(path, status);
  if (status) fail_on_path(status.value(), "{} cannot be removed", path);
}

namespace {

[[noreturn]] void fail_on(const std::string& path, const char* what) {
  fail_on_path(errno, "{} cannot be {}", path, what);
}

void sync_file(const fs::path& path) {
  const int file = repeated([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC); });
  if (file < 0) fail_on(path.string(), "opened");
  const int status = repeated([&] { return fsync(file); });
  close(file);
  if (status != 0) fail_on(path.string(), "flushed to disk");
}

// Some file systems flush no directories, and one that may be written to need not be readable:
// the names in it are then as safe as they can be.
void sync_directory(const fs::path& path) {
  const int file = repeated([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (file < 0 && errno == EACCES) return;
  if (file < 0) fail_on(path.string(), "opened");
  const bool failed =
      repeated([&] { return fsync(file); }) != 0 && errno != EINVAL && errno != ENOTSUP;
  close(file);
  if (failed) fail_on(path.string(), "flushed to disk");
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? "." : parent;
}

void rename_into_place(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_on(to, "put in place");
  sync_directory(parent_of(to));
}

void make_directory(const fs::path& path) {
  std::error_code status;
  if (path.empty() || fs::is_directory(path, status)) return;
  make_directory(path.parent_path());
  if (fs::is_directory(path, status)) return;  // "a/b/", whose parent is "a/b"
  if (fs::exists(path, status))
    fail<ConfigError>("{} must be a directory, but is a file; choose another path or remove it",
                      path.string());
  if (mkdir(path.c_str(), 0777) != 0 && !(errno == EEXIST && fs::is_directory(path, status)))
    fail_on(path.string(), "created");
  sync_directory(parent_of(path));
}

bool exists(const std::string& path) {
  std::error_code status;
  return fs::exists(fs::symlink_status(path, status));
}

// Both names keep something to stand for at any moment. False if the file system has no such call.
bool exchange_names(const std::string& a, const std::string& b) {
  if (renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) {
    sync_directory(parent_of(b));
    return true;
  }
  if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) return false;
  fail_on(b, "put in place");
}

// What the names in a directory are; none if it is not there.
std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code status;
  fs::directory_iterator entries(directory, status);
  if (status == std::errc::no_such_file_or_directory) return names;
  for (; !status && entries != fs::directory_iterator(); entries.increment(status))
    names.push_back(entries->path().filename().string());
  if (status) fail_on_path(status.value(), "{} cannot be listed", directory.string());
  return names;
}

// For its lock; -1: neither a directory nor a file, or not to be had.
int open_for_lock(const fs::path& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) return -1;
  const auto opened = [&](int flags) {
    return repeated([&] { return open(path.c_str(), flags | O_NOFOLLOW | O_CLOEXEC); });
  };
  if (S_ISDIR(status.st_mode)) return opened(O_RDONLY | O_DIRECTORY);
  if (!S_ISREG(status.st_mode)) return -1;
  // Over a network the lock of a file is had by those alone who may write to it.
  const int file = opened(O_RDWR);
  return file >= 0 ? file : opened(O_RDONLY);
}

// As flock(), at once: 0, or -1 with EWOULDBLOCK where another process holds the lock.
int try_to_lock(int file) {
  return repeated([&] { return flock(file, LOCK_EX | LOCK_NB); });
}

// Removes a directory or file whose lock no living process holds, and holds the lock meanwhile, so
// that nobody begins to fill it. Where that cannot be told, `otherwise` decides. Whether it is
// gone.
bool remove_if_abandoned(const fs::path& path, bool otherwise) {
  const int file = open_for_lock(path);
  bool abandoned = otherwise;  // a link cannot tell
  if (file >= 0 && try_to_lock(file) == 0)
    abandoned = true;
  else if (file >= 0 && errno == EWOULDBLOCK)
    abandoned = false;
  const std::shared_ptr<void> closed(nullptr, [file](void*) {
    if (file >= 0) close(file);
  });
  if (abandoned) remove_tree(path);
  return abandoned;
}

// What dead makers left beside the target.
void clear_abandoned(const std::string& target) {
  const fs::path path = target;
  remove_abandoned(parent_of(path).string(), [own = path.filename().string()](
                                                 const std::string& name) { return name == own; });
}

// As recover_replaced() of one target; what may not be listed stays.
void recover(const std::string& target) {
  const fs::path path = target;
  std::error_code status;
  const fs::directory_iterator listed(parent_of(path), status);
  if (status) return;
  recover_replaced(parent_of(path).string(), [own = path.filename().string()](
                                                 const std::string& name) { return name == own; });
}

// A fresh directory or file beside a target, and the descriptor that holds its lock. Where there
// are no locks it holds none, and nobody can find the thing abandoned either.
struct Partial {
  std::string path;
  int lock;
};

// `make` makes what has the name that it is given, and opens it; -1 with errno.
template <typename Make>
Partial make_locked(const std::string& target, const Make& make) {
  while (true) {
    const std::string path = name_beside(target, kPartial);
    const int lock = repeated([&] { return make(path.c_str()); });
    if (lock < 0 && errno == EEXIST) continue;
    if (lock < 0) fail_on(target, "created");
    const bool taken = try_to_lock(lock) != 0 && errno == EWOULDBLOCK;
    // Before it was locked it may have been taken for an abandoned one, and be going or gone.
    if (!taken && exists(path)) return {path, lock};
    close(lock);
  }
}

Partial make_locked_directory(const std::string& target) {
  const Partial partial = make_locked(target, [](const char* path) {
    if (mkdir(path, 0777) != 0) return -1;
    const int file = repeated([&] { return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (file < 0) {
      const int reason = errno;
      rmdir(path);
      errno = reason;
    }
    return file;
  });
  take_access(partial.lock, target);
  return partial;
}

// What takes a file's place is nobody else's to open until it has that file's access.
Partial make_locked_file(const std::string& target) {
  std::error_code status;
  const mode_t mode = fs::is_regular_file(fs::symlink_status(target, status)) ? 0600 : 0666;
  return make_locked(target, [&](const char* path) {
    return open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  });
}

}  // namespace

namespace {

// As no other process can have taken the name in between. ConfigError if it is taken.
void rename_to_new(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
    // Without such a call a second name does the same, and without those it is looked at once more.
    const int reason = errno;
    const bool has_no_call = reason == EINVAL || reason == ENOSYS || reason == ENOTSUP;
    if (has_no_call && link(from.c_str(), to.c_str()) == 0) {
      unlink(from.c_str());
    } else {
      require_new(to);
      errno = reason;
      if (!has_no_call) fail_on(to, "put in place");
      return rename_into_place(from, to);
    }
  }
  sync_directory(parent_of(to));
}

void write_beside(const std::string& path, std::string_view bytes,
                  const std::function<void(const std::string&)>& put_in_place) {
  clear_abandoned(path);
  const Partial partial = make_locked_file(path);
  const std::shared_ptr<void> closed(nullptr, [&](void*) { close(partial.lock); });
  try {
    OutputFile file(partial.path, path);
    take_access(partial.lock, path);
    file.write(bytes);
    file.finish();
    put_in_place(partial.path);
  } catch (...) {
    unlink(partial.path.c_str());
    throw;
  }
}

}  // namespace

void write_file_atomically(const std::string& path, std::string_view bytes) {
  write_beside(path, bytes, [&](const std::string& made) { rename_into_place(made, path); });
}

void write_new_file(const std::string& path, std::string_view bytes) {
  require_new(path);
  write_beside(path, bytes, [&](const std::string& made) { rename_to_new(made, path); });
}

void make_directories(const std::string& path) { make_directory(path); }

bool replace_link(const std::string& path, const std::string& target) {
  const std::string partial = name_beside(path, kPartial);
  if (symlink(target.c_str(), partial.c_str()) != 0) {
    if (errno == EPERM || errno == ENOTSUP || errno == ENOSYS) return false;
    fail_on(path, "created");
  }
  rename_into_place(partial, path);
  return true;
}

namespace {

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

void require_free_directory(const std::string& path) {
  std::string target = without_slash(path);
  std::error_code status;
  // "missing/../out" is out once what is missing has been made on the way to it.
  const fs::path parent = parent_of(target);
  if (!target.empty() && !fs::exists(parent, status))
    if (const fs::path made = fs::weakly_canonical(parent, status); !status)
      target = (made / fs::path(target).filename()).string();
  const bool is_link = fs::is_symlink(fs::symlink_status(target, status));
  if (target.empty()) fail<ConfigError>("a directory must be named, found ''");
  if (!is_link && !fs::exists(target, status)) return require_place(target);
  if (!is_link && !(fs::is_directory(target, status) && fs::is_empty(target, status))) {
    fail<ConfigError>("{} must not exist or be an empty directory; choose another or remove it",
                      target);
  }
  // What a rename at the end would fail on is refused before the work.
  if (const std::string obstacle = obstacle_to_replacing(target); !obstacle.empty())
    fail<ConfigError>("{} {}, and cannot be replaced; name a directory in it", target, obstacle);
}

AtomicDirectory::AtomicDirectory(const std::string& target, Existing existing)
    : target_(without_slash(target)), replace_(existing == Existing::kReplace) {
  if (replace_)
    recover(target_);
  else
    require_free_directory(target_);
  make_directory(parent_of(target_));
  clear_abandoned(target_);
  Partial partial = make_locked_directory(target_);
  path_ = std::move(partial.path);
  lock_ = partial.lock;
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(path_, ignored);
  if (lock_ >= 0) close(lock_);
}

namespace {

// Of a directory that is in place: that what it replaced cannot go is no failure of what it holds.
void clear_replaced(const std::string& target, const std::function<void()>& remove) {
  try {
    remove();
  } catch (const Error& error) {
    log::warning("{} is in place, but what it replaced is left beside it: {}", target,
                 error.what());
  }
}

}  // namespace

void AtomicDirectory::commit() {
  require_mapped_unchanged();
  const Progress progress("flushing " + target_ + " to disk");
  std::error_code status;
  fs::recursive_directory_iterator entries(path_, status);
  for (; !status && entries != fs::recursive_directory_iterator(); entries.increment(status)) {
    if (entries->is_symlink()) continue;
    if (entries->is_directory())
      sync_directory(entries->path());
    else
      sync_file(entries->path());
  }
  if (status) fail<IoError>("{} cannot be listed: {}", path_, status.message());
  sync_directory(path_);
  const bool replaces = replace_ && exists(target_);
  if (replaces && exchange_names(path_, target_)) {
    committed_ = true;
    return clear_replaced(target_, [this] { remove_tree(path_); });  // now the old one
  }
  const std::string replaced = name_beside(target_, kReplaced);
  if (replaces) rename_into_place(target_, replaced);
  rename_into_place(path_, target_);  // replaces an empty directory
  committed_ = true;
  if (replaces) clear_replaced(target_, [&] { remove_tree(replaced); });
}

void recover_replaced(const std::string& directory,
                      const std::function<bool(const std::string&)>& ours) {
  for (const std::string& entry : names_in(directory)) {
    const std::string name = name_stood_for(entry, kReplaced);
    if (name.empty() || !ours(name)) continue;
    const fs::path replaced = fs::path(directory) / entry, target = fs::path(directory) / name;
    if (exists(target.string()))
      remove_tree(replaced.string());
    else
      rename_into_place(replaced.string(), target.string());
  }
}

std::vector<std::string> remove_partial(const std::string& directory,
                                        const std::function<bool(const std::string&)>& ours) {
  std::vector<std::string> removed;
  std::exception_ptr first;
  for (const std::string& entry : names_in(directory)) {
    const std::string name = name_stood_for(entry, kPartial);
    if (name.empty() || !ours(name)) continue;
    try {
      if (remove_if_abandoned(fs::path(directory) / entry, true)) removed.push_back(entry);
    } catch (const IoError&) {
      if (!first) first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
  return removed;
}

void remove_abandoned(const std::string& directory,
                      const std::function<bool(const std::string&)>& ours) {
  std::error_code status;
  fs::directory_iterator entries(directory, status);
  for (; !status && entries != fs::directory_iterator(); entries.increment(status)) {
    const std::string name = name_stood_for(entries->path().filename().string(), kPartial);
    if (name.empty() || !ours(name)) continue;
    try {
      remove_if_abandoned(entries->path(), false);
    } catch (const IoError&) {
      continue;  // another user's, in a common directory
    }
  }
}

void move(const std::string& from, const std::string& to) {
  rename_into_place(from, to);
  sync_directory(parent_of(from));
}

void remove_file(const std::string& path) {
  if (unlink(path.c_str()) != 0) fail_on(path, "removed");
  sync_directory(parent_of(path));
}

std::string move_aside(const std::string& path) {
  const std::string aside = name_beside(path, kPartial);
  if (std::rename(path.c_str(), aside.c_str()) != 0) fail_on(path, "renamed");
  sync_directory(parent_of(path));
  return aside;
}

void require_free_space(const std::string& path, uint64_t bytes, const std::string& purpose) {
  fs::path existing = fs::absolute(path);
  std::error_code unreadable;
  while (!fs::exists(existing, unreadable) && existing.has_relative_path())
    existing = existing.parent_path();
  struct statvfs status {};
  if (statvfs(existing.c_str(), &status) != 0) fail_on(existing.string(), "examined");
  const uint64_t free = static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
  if (free < bytes) {
    fail<IoError>("{} needs {} MB in {}, where {} MB are free; make room and start again", purpose,
                  bytes / 1000000 + 1, existing.string(), free / 1000000);
  }
}

}  // namespace qlora::io
