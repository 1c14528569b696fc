#include "io/atomic_write.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/progress.h"
#include "io/output_file.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

constexpr const char* kPartial = ".partial-";

std::string partial_name(const std::string& target) {
  return target + kPartial + std::to_string(getpid());
}

[[noreturn]] void fail_on(const std::string& path, const char* what) {
  fail<IoError>("{} cannot be {}: {}", path, what, std::strerror(errno));
}

void sync(const fs::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail_on(path.string(), "opened");
  const int status = fsync(file);
  close(file);
  if (status != 0) fail_on(path.string(), "flushed to disk");
}

fs::path parent_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent;
}

void rename_into_place(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_on(to, "put in place");
  sync(parent_of(to));
}

void make_directories(const fs::path& path) {
  std::error_code status;
  fs::create_directories(path, status);
  if (status) fail<IoError>("{} cannot be created: {}", path.string(), status.message());
}

void remove_tree(const fs::path& path) {
  std::error_code status;
  fs::remove_all(path, status);
  if (status) fail<IoError>("{} cannot be removed: {}", path.string(), status.message());
}

// The process that a name of partial_name() tells of; 0 for other names.
pid_t maker_of(const std::string& name) {
  const size_t mark = name.rfind(kPartial);
  if (mark == std::string::npos) return 0;
  const char* first = name.data() + mark + std::strlen(kPartial);
  const char* last = name.data() + name.size();
  pid_t process = 0;
  const auto [end, error] = std::from_chars(first, last, process);
  return error == std::errc() && end == last && process > 0 ? process : 0;
}

bool is_alive(pid_t process) { return kill(process, 0) == 0 || errno == EPERM; }

}  // namespace

void write_file_atomically(const std::string& path, std::string_view bytes) {
  const std::string partial = partial_name(path);
  try {
    OutputFile file(partial);
    file.write(bytes);
    file.finish();
    rename_into_place(partial, path);
  } catch (...) {
    unlink(partial.c_str());
    throw;
  }
}

AtomicDirectory::AtomicDirectory(const std::string& target, Existing existing)
    : target_(target), replace_(existing == Existing::kReplace) {
  while (target_.size() > 1 && target_.ends_with('/')) target_.pop_back();
  std::error_code status;
  const bool there = fs::exists(target_, status);
  if (!replace_ && there && !(fs::is_directory(target_, status) && fs::is_empty(target_, status))) {
    fail<ConfigError>("{} must not exist or be an empty directory; choose another or remove it",
                      target_);
  }
  path_ = partial_name(target_);
  remove_tree(path_);
  make_directories(path_);
}

AtomicDirectory::~AtomicDirectory() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void AtomicDirectory::commit() {
  const Progress progress("flushing " + target_ + " to disk");
  std::error_code status;
  fs::recursive_directory_iterator entries(path_, status);
  for (; !status && entries != fs::recursive_directory_iterator(); entries.increment(status))
    if (!entries->is_symlink()) sync(entries->path());
  if (status) fail<IoError>("{} cannot be listed: {}", path_, status.message());
  sync(path_);
  std::string old;
  if (replace_ && fs::exists(target_, status)) old = move_aside(target_);
  rename_into_place(path_, target_);  // replaces an empty directory
  committed_ = true;
  if (!old.empty()) remove_tree(old);
}

std::vector<std::string> remove_partial_directories(const std::string& directory) {
  std::error_code status;
  fs::directory_iterator entries(directory, status);
  if (status == std::errc::no_such_file_or_directory) return {};
  std::vector<std::string> removed;
  for (; !status && entries != fs::directory_iterator(); entries.increment(status)) {
    const std::string name = entries->path().filename().string();
    const pid_t process = maker_of(name);
    // In a container every program has the same number: a namesake of this process is a dead one.
    if (process == 0 || (process != getpid() && is_alive(process))) continue;
    remove_tree(entries->path());
    removed.push_back(name);
  }
  if (status) fail<IoError>("{} cannot be listed: {}", directory, status.message());
  return removed;
}

std::string move_aside(const std::string& path) {
  const std::string aside =
      partial_name(path + ".old");  // not the name of a directory in the making
  remove_tree(aside);
  rename_into_place(path, aside);
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
