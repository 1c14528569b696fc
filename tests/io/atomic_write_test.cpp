#include "io/atomic_write.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "io/output_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

// A number that belonged to a process which has ended.
pid_t dead_process() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return child;
}

// Files larger than this fail, as on a full disk, until the end of the scope.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  sighandler_t handler_;
};

TEST(WriteFileAtomically, ReplacesTheFileAndLeavesNothingBeside) {
  TempDir dir;
  write_file_atomically(dir / "a", "old");
  write_file_atomically(dir / "a", "new");
  EXPECT_EQ(test::read_file(dir / "a"), "new");
  EXPECT_THAT(names_in(dir.path()), ElementsAre("a"));
}

TEST(WriteFileAtomically, AFailureLeavesTheOldFileAsItWas) {
  TempDir dir;
  write_file_atomically(dir / "a", "old");
  {
    const FileSizeLimit limit(1000);
    EXPECT_THROW(write_file_atomically(dir / "a", std::string(5000, 'x')), IoError);
  }
  EXPECT_EQ(test::read_file(dir / "a"), "old");
  EXPECT_THAT(names_in(dir.path()), ElementsAre("a"));
  EXPECT_THROW(write_file_atomically(dir / "no/such/a", "x"), IoError);
}

TEST(OutputFile, LargeAndSmallWritesKeepTheirOrder) {
  TempDir dir;
  std::string expected;
  OutputFile file(dir / "a");
  for (int i = 0; i < 9; ++i) {
    const std::string part(i % 3 == 0 ? 3 << 19 : 1 + 1000 * static_cast<size_t>(i),
                           static_cast<char>('a' + i));
    file.write(part);
    expected += part;
  }
  EXPECT_EQ(file.size(), expected.size());
  file.finish();
  EXPECT_TRUE(test::read_file(dir / "a") == expected);
}

TEST(OutputFile, AFullDiskIsAnIoErrorWithPathAndReason) {
  try {
    OutputFile file("/dev/full");
    file.write("x");
    file.finish();
    FAIL() << "must throw";
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/dev/full cannot be written: No space left on device"));
  }
}

TEST(AtomicDirectory, AppearsAtCommitAndNotBefore) {
  TempDir dir;
  const std::string target = dir / "parent/checkpoint";
  AtomicDirectory made(target);
  EXPECT_FALSE(fs::exists(target));
  fs::create_directory(made.path() + "/inner");
  write_file_atomically(made.path() + "/inner/a", "bytes");
  made.commit();
  EXPECT_EQ(test::read_file(target + "/inner/a"), "bytes");
  EXPECT_THAT(names_in(dir / "parent"), ElementsAre("checkpoint"));
}

TEST(AtomicDirectory, WithoutCommitNothingStays) {
  TempDir dir;
  {
    const AtomicDirectory made(dir / "checkpoint");
    write_file_atomically(made.path() + "/a", "bytes");
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre());
}

TEST(AtomicDirectory, TakesAnEmptyDirectorysPlaceAndNoFullOnes) {
  TempDir dir;
  fs::create_directory(dir / "empty");
  AtomicDirectory made(dir / "empty/");
  write_file_atomically(made.path() + "/a", "bytes");
  made.commit();
  EXPECT_EQ(test::read_file(dir / "empty/a"), "bytes");
  EXPECT_THROW(AtomicDirectory(dir / "empty"), ConfigError);
  dir.write("file", "x");
  EXPECT_THROW(AtomicDirectory(dir / "file"), ConfigError);
  EXPECT_THROW(AtomicDirectory(dir / "file/below"), IoError);
}

TEST(AtomicDirectory, AKilledProcessLeavesOnlyAPartialOneThatIsClearedAway) {
  TempDir dir;
  const pid_t child = fork();
  if (child == 0) {
    AtomicDirectory made(dir / "checkpoint");
    write_file_atomically(made.path() + "/a", "bytes");
    kill(getpid(), SIGKILL);
  }
  waitpid(child, nullptr, 0);
  const std::string left = "checkpoint.partial-" + std::to_string(child);
  EXPECT_THAT(names_in(dir.path()), ElementsAre(left));
  EXPECT_THAT(remove_partial_directories(dir.path()), ElementsAre(left));
  EXPECT_THAT(names_in(dir.path()), ElementsAre());
}

TEST(RemovePartialDirectories, SparesLivingProcessesAndOtherNames) {
  TempDir dir;
  const std::string living = "a.partial-" + std::to_string(getppid());
  const std::string dead = "b.partial-" + std::to_string(dead_process());
  for (const std::string& name : {living, dead, std::string("c.partial-"),
                                  std::string("d.partial-1x"), std::string("e.partial--1"),
                                  std::string("f.partial-99999999999"), std::string("partial-1")})
    fs::create_directory(dir / name);
  EXPECT_THAT(remove_partial_directories(dir.path()), ElementsAre(dead));
  EXPECT_EQ(names_in(dir.path()).size(), 6u);
}

TEST(RemovePartialDirectories, FindsNothingWhereThereIsNoDirectory) {
  TempDir dir;
  EXPECT_THAT(remove_partial_directories(dir / "absent"), ElementsAre());
  EXPECT_THROW(remove_partial_directories(dir.write("file", "x")), IoError);
}

TEST(RequireFreeSpace, SaysWhatIsNeededForWhat) {
  TempDir dir;
  require_free_space(dir / "not/yet/there", 1, "a checkpoint");
  try {
    require_free_space(dir / "not/yet/there", uint64_t{1} << 60, "a checkpoint");
    FAIL() << "must throw";
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("a checkpoint needs"));
    EXPECT_THAT(error.what(), HasSubstr(dir.path()));
  }
}

TEST(AtomicDirectory, WhatItReplacesStaysUntilTheNewOneIsWhole) {
  test::TempDir dir;
  dir.write("out/old.txt", "old");
  {
    AtomicDirectory given_up(dir / "out", AtomicDirectory::Existing::kReplace);
    EXPECT_EQ(test::read_file(dir / "out/old.txt"), "old");
  }
  EXPECT_EQ(test::read_file(dir / "out/old.txt"), "old");
  AtomicDirectory target(dir / "out", AtomicDirectory::Existing::kReplace);
  std::ofstream(target.path() + "/new.txt") << "new";
  target.commit();
  EXPECT_EQ(test::read_file(dir / "out/new.txt"), "new");
  EXPECT_FALSE(std::filesystem::exists(dir / "out/old.txt"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

}  // namespace
}  // namespace qlora::io
