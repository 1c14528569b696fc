// Two runs in one directory are kept apart, with locks of the file system and without.
#include "recipes/run_files/run_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::recipes {
namespace {
using testing::HasSubstr;

int has_no_locks(int, int) {
  errno = ENOLCK;
  return -1;
}

// As NFS: files alone.
int locks_files(int file, int operation) {
  struct stat status = {};
  fstat(file, &status);
  if (!S_ISDIR(status.st_mode)) return flock(file, operation);
  errno = EBADF;
  return -1;
}

// As over a network when a signal comes.
int is_cut_short_once(int file, int operation) {
  static int calls = 0;
  if (++calls > 1) return flock(file, operation);
  errno = EINTR;
  return -1;
}

std::string warned_by(const std::string& directory, TakeLock take_lock, RunLock& lock) {
  testing::internal::CaptureStderr();
  lock = lock_run(directory, take_lock);
  return testing::internal::GetCapturedStderr();
}

TEST(RunLock, WithoutLocksTheRunsOfOneMachineAreKeptApart) {
  const test::TempDir dir;
  RunLock first;
  EXPECT_THAT(warned_by(dir.path(), has_no_locks, first),
              AllOf(HasSubstr("has no locks"), HasSubstr("a second run on this machine is refused"),
                    HasSubstr("on another machine")));
  EXPECT_FALSE(first.is_certain);
  EXPECT_THROW(lock_run(dir.path(), has_no_locks), ConfigError);
  std::filesystem::create_directory_symlink(dir.path(), dir / "alias");
  EXPECT_THROW(lock_run(dir / "alias", has_no_locks), ConfigError);
  first = {};
  EXPECT_NE(lock_run(dir.path(), has_no_locks).held, nullptr);
}

TEST(RunLock, IsAskedForAgainWhereASignalCutsThatShort) {
  const test::TempDir dir;
  EXPECT_TRUE(lock_run(dir.path(), is_cut_short_once).is_certain);
  EXPECT_FALSE(std::filesystem::exists(dir / kLockFile));
}

TEST(RunLock, WithoutLocksRunsOfTwoDirectoriesDoNotMeet) {
  const test::TempDir one, other;
  const RunLock first = lock_run(one.path(), has_no_locks);
  EXPECT_NE(lock_run(other.path(), has_no_locks).held, nullptr);
}

TEST(RunLock, WhatReplacesALockGoesWithItsProcess) {
  const test::TempDir dir;
  const pid_t child = fork();
  if (child == 0) {
    const RunLock lock = lock_run(dir.path(), has_no_locks);
    _exit(lock.held ? 0 : 1);  // without giving it up
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_NE(lock_run(dir.path(), has_no_locks).held, nullptr);
}

TEST(RunLock, WhereDirectoriesHaveNoneAFileInItIsLocked) {
  const test::TempDir dir;
  RunLock first;
  EXPECT_EQ(warned_by(dir.path(), locks_files, first), "");
  EXPECT_TRUE(first.is_certain);
  EXPECT_TRUE(std::filesystem::exists(dir / kLockFile));
  EXPECT_THROW(lock_run(dir.path(), locks_files), ConfigError);
}

}  // namespace
}  // namespace qlora::recipes
