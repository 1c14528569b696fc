#include "io/atomic_write.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/error.h"
#include "io/output_file.h"
#include "io/repeated.h"
#include "tests/support/another_user.h"
#include "tests/support/killed_work.h"
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
    EXPECT_THAT([&] { write_file_atomically(dir / "a", std::string(5000, 'x')); },
                testing::ThrowsMessage<IoError>(HasSubstr((dir / "a") + " cannot be written")));
  }
  EXPECT_EQ(test::read_file(dir / "a"), "old");
  EXPECT_THAT(names_in(dir.path()), ElementsAre("a"));
  EXPECT_THAT([&] { write_file_atomically(dir / "no/such/a", "x"); },
              testing::ThrowsMessage<IoError>(HasSubstr("no/such/a cannot be created")));
}

TEST(WriteFileAtomically, WhatAKilledProcessLeftIsClearedAwayByTheNext) {
  TempDir dir;
  const auto kills =
      test::kill_at_each_call([] {}, [&] { write_file_atomically(dir / "a", "killed"); },
                              [&] {
                                write_file_atomically(dir / "a", "next");
                                EXPECT_EQ(test::read_file(dir / "a"), "next");
                                EXPECT_THAT(names_in(dir.path()), ElementsAre("a"));
                              });
  EXPECT_GE(kills, 4);
}

TEST(WriteFileAtomically, WhatALivingProcessWritesAndWhatIsNotItsOwnIsSpared) {
  TempDir dir;
  dir.write("a.partial-0123abcd0123abcd", "being written");
  const int file = open((dir / "a.partial-0123abcd0123abcd").c_str(), O_RDWR);
  ASSERT_EQ(flock(file, LOCK_EX | LOCK_NB), 0);
  const std::vector<std::string> others = {"a.partial-20261201", "a.partial-0123abcd0123abcd.txt",
                                           "b.partial-0123abcd0123abcd",
                                           "a.partial-0123abcd0123abcx"};
  for (const std::string& name : others) dir.write(name, "of somebody");
  fs::create_symlink(dir / "b.partial-0123abcd0123abcd", dir / "a.partial-0123456701234567");
  write_file_atomically(dir / "a", "new");
  EXPECT_EQ(names_in(dir.path()).size(), others.size() + 3);
  EXPECT_THAT(remove_partial(dir.path(), [](const std::string& name) { return name == "a"; }),
              testing::ElementsAre("a.partial-0123456701234567"));
  close(file);
  write_file_atomically(dir / "a", "new");
  EXPECT_THAT(names_in(dir.path()),
              ElementsAre("a", "a.partial-0123abcd0123abcd.txt", "a.partial-0123abcd0123abcx",
                          "a.partial-20261201", "b.partial-0123abcd0123abcd"));
}

TEST(WriteNewFile, MakesAFileAndReplacesNone) {
  const TempDir dir;
  write_new_file(dir / "a", "new");
  EXPECT_EQ(test::read_file(dir / "a"), "new");
  EXPECT_THROW(write_new_file(dir / "a", "newer"), ConfigError);
  fs::create_symlink("nowhere", dir / "link");
  EXPECT_THROW(write_new_file(dir / "link", "newer"), ConfigError);
  EXPECT_EQ(test::read_file(dir / "a"), "new");
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"a", "link"}));
}

TEST(WriteNewFile, OfTwoAtOnceOneMakesIt) {
  for (const int without_call : {0, 1}) {
    const TempDir dir;
    std::atomic<int> made = 0, refused = 0;
    refuse_exchange(without_call);
    std::vector<std::thread> writers;
    for (int i = 0; i < 8; ++i)
      writers.emplace_back([&] {
        try {
          write_new_file(dir / "a", "new");
          ++made;
        } catch (const ConfigError&) {
          ++refused;
        }
      });
    for (std::thread& writer : writers) writer.join();
    refuse_exchange(0);
    EXPECT_EQ(made, 1);
    EXPECT_EQ(refused, 7);
    EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"a"});
  }
}

TEST(Repeated, MakesACallAgainAsLongAsASignalCutsItShort) {
  int calls = 0;
  EXPECT_EQ(repeated([&] {
              errno = EINTR;
              return ++calls < 3 ? -1 : 7;
            }),
            7);
  EXPECT_EQ(repeated([&] {
              errno = EIO;
              ++calls;
              return -1;
            }),
            -1);
  EXPECT_EQ(calls, 4);
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
  EXPECT_THROW(AtomicDirectory(dir / "file/below"), ConfigError);
}

// "<name>.partial-<random>" alone in `directory`, apart from `others`.
std::string only_partial(const std::string& directory,
                         const std::vector<std::string>& others = {}) {
  std::vector<std::string> partial;
  for (const std::string& name : names_in(directory))
    if (std::ranges::find(others, name) == others.end()) partial.push_back(name);
  return partial.size() == 1 ? partial[0] : "";
}

bool any_name(const std::string&) { return true; }

// Makes `path`.partial-... in a process of its own, which is killed at once or, with `lives`, when
// the test has closed the pipe that is returned.
int make_half_a_directory(const std::string& path, bool lives) {
  int made[2], end[2];
  EXPECT_EQ(pipe(made) + pipe(end), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(end[1]);
    AtomicDirectory directory(path);
    write_file_atomically(directory.path() + "/a", "bytes");
    char byte = 0;
    [[maybe_unused]] ssize_t ignored = write(made[1], &byte, 1);
    if (lives) ignored = read(end[0], &byte, 1);
    kill(getpid(), SIGKILL);
  }
  char byte = 0;
  EXPECT_EQ(read(made[0], &byte, 1), 1);
  for (const int file : {made[0], made[1], end[0]}) close(file);
  if (!lives) waitpid(child, nullptr, 0);
  return end[1];
}

TEST(AtomicDirectory, ALinkIsRefusedBeforeTheWorkAndNotAfterIt) {
  const TempDir dir;
  fs::create_directory(dir / "elsewhere");
  for (const char* end : {"elsewhere", "nowhere"}) {
    const std::string link = dir / (std::string("to-") + end);
    fs::create_symlink(dir / end, link);
    try {
      AtomicDirectory directory(link);
      ADD_FAILURE() << link << " was taken";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("is a link or a mount point"));
    }
    EXPECT_TRUE(fs::is_symlink(link));
  }
}

TEST(AtomicDirectory, WhatAKilledProcessLeftIsClearedAwayByTheNext) {
  TempDir dir;
  close(make_half_a_directory(dir / "checkpoint", false));
  EXPECT_THAT(only_partial(dir.path()), testing::StartsWith("checkpoint.partial-"));
  dir.write("another.partial-0123456789abcdef/a", "of another name");
  { const AtomicDirectory next(dir / "checkpoint"); }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("another.partial-0123456789abcdef"));
}

TEST(AtomicDirectory, WhatALivingProcessFillsIsSparedWhateverItsNumber) {
  TempDir dir;
  const int end = make_half_a_directory(dir / "checkpoint", true);
  const std::string name = only_partial(dir.path());
  EXPECT_THAT(remove_partial(dir.path(), any_name), ElementsAre());
  {
    AtomicDirectory other(dir / "checkpoint");
    EXPECT_TRUE(fs::exists(dir / (name + "/a")));
    other.commit();
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("checkpoint", name));
  close(end);
  wait(nullptr);
  EXPECT_THAT(remove_partial(dir.path(), any_name), ElementsAre(name));
}

TEST(RemovePartial, TakesFilesAndDirectoriesOfTheNamesGivenAndSparesOthers) {
  TempDir dir;
  for (const char* name : {"a.partial-0123456789abcdef", "b.partial-0123456789abcdef", "c.partial-",
                           "d.partial-0123456789abcdex", "e.partial-20261201",
                           "partial-0123456789abcdef", ".partial-0123456789abcdef"})
    fs::create_directory(dir / name);
  dir.write("metrics.jsonl.partial-0123456789abcdef", "bytes");
  const auto ours = [](const std::string& name) { return name != "b"; };
  EXPECT_THAT(remove_partial(dir.path(), ours),
              testing::UnorderedElementsAre("a.partial-0123456789abcdef",
                                            "metrics.jsonl.partial-0123456789abcdef"));
  EXPECT_EQ(names_in(dir.path()).size(), 6u);
}

TEST(WriteFileAtomically, ANewFileIsForWhomTheProcessMakesFiles) {
  TempDir dir;
  const auto mode_under = [&](mode_t mask, const std::string& name) {
    const mode_t before = umask(mask);
    write_file_atomically(dir / name, "x");
    OutputFile(dir / (name + ".out")).finish();
    umask(before);
    struct stat file {
    }, out{};
    EXPECT_EQ(stat((dir / name).c_str(), &file), 0);
    EXPECT_EQ(stat((dir / (name + ".out")).c_str(), &out), 0);
    EXPECT_EQ(file.st_mode, out.st_mode);
    return file.st_mode & 07777;
  };
  EXPECT_EQ(mode_under(0002, "group"), 0664u);
  EXPECT_EQ(mode_under(0022, "others"), 0644u);
  EXPECT_EQ(mode_under(0077, "own"), 0600u);
}

TEST(RemovePartial, OneThatCannotBeRemovedKeepsNoOtherOne) {
  TempDir dir;
  for (const char* name :
       {"a.partial-0123456789abcdef", "b.partial-0123456789abcdef", "c.partial-0123456789abcdef"}) {
    dir.write(std::string(name) + "/x", "x");
    test::open_to_all(dir / name);
  }
  test::open_to_all(dir.path());
  test::close_to_all(dir / "b.partial-0123456789abcdef");
  {
    const test::AnotherUser user;
    if (!user.can_work_in(dir.path())) GTEST_SKIP() << dir.path() << " is closed to other users";
    EXPECT_THAT(
        [&] { remove_partial(dir.path(), any_name); },
        testing::ThrowsMessage<IoError>(HasSubstr("b.partial-0123456789abcdef cannot be removed")));
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("b.partial-0123456789abcdef"));
  test::open_to_all(dir / "b.partial-0123456789abcdef");
}

TEST(RemoveFile, OfALinkLeavesWhatItLeadsTo) {
  TempDir dir;
  dir.write("there/file", "x");
  fs::create_symlink("there", dir / "link");
  remove_file(dir / "link");
  EXPECT_THAT(names_in(dir.path()), ElementsAre("there"));
  remove_file(dir / "there/file");
  EXPECT_TRUE(fs::is_empty(dir / "there"));
  for (const char* name : {"link", "there"})  // nothing, and a directory
    EXPECT_THAT([&] { remove_file(dir / name); },
                testing::ThrowsMessage<IoError>(HasSubstr(dir / name + " cannot be removed")));
}

TEST(RemovePartial, FindsNothingWhereThereIsNoDirectory) {
  TempDir dir;
  EXPECT_THAT(remove_partial(dir / "absent", any_name), ElementsAre());
  EXPECT_THROW(remove_partial(dir.write("file", "x"), any_name), IoError);
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

TEST(AtomicDirectory, IsInPlaceAlsoWhereWhatItReplacesCannotBeRemoved) {
  const TempDir dir;
  dir.write("out/kept/old.txt", "old");
  test::open_to_all(dir.path());
  test::open_to_all(dir / "out");
  test::close_to_all(dir / "out/kept");
  testing::internal::CaptureStderr();
  {
    const test::AnotherUser user;
    AtomicDirectory target(dir / "out", AtomicDirectory::Existing::kReplace);
    write_file_atomically(target.path() + "/new.txt", "new");
    EXPECT_NO_THROW(target.commit());
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(HasSubstr("/out is in place, but what it replaced is left beside it"),
                             HasSubstr("cannot be removed")));
  EXPECT_EQ(test::read_file(dir / "out/new.txt"), "new");
  const std::string left = only_partial(dir.path(), {"out"});
  EXPECT_TRUE(fs::exists(dir / (left + "/kept/old.txt")));
  test::open_to_all(dir / (left + "/kept"));
}

TEST(MakeDirectories, MakesWhatIsMissingAndSaysWhatCannotBeMade) {
  TempDir dir;
  make_directories(dir / "a/b/c/");
  make_directories(dir / "a/b");
  EXPECT_TRUE(fs::is_directory(dir / "a/b/c"));
  dir.write("file", "x");
  EXPECT_THROW(make_directories(dir / "file"), ConfigError);
  EXPECT_THROW(make_directories(dir / "file/below"), ConfigError);
}

// Each of these is killed at every system call that changes a file.

TEST(AKillAtAnyCall, LeavesAFileOldOrNew) {
  TempDir dir;
  const auto kills =
      test::kill_at_each_call([&] { write_file_atomically(dir / "a", "old"); },
                              [&] { write_file_atomically(dir / "a", "new, and longer"); },
                              [&] {
                                const std::string bytes = test::read_file(dir / "a");
                                EXPECT_TRUE(bytes == "old" || bytes == "new, and longer") << bytes;
                              });
  EXPECT_GE(kills, 4);  // write, fsync, rename, fsync of the directory
}

TEST(AKillAtAnyCall, LeavesALinkOldOrNew) {
  TempDir dir;
  const auto kills =
      test::kill_at_each_call([&] { EXPECT_TRUE(replace_link(dir / "best", "old")); },
                              [&] { EXPECT_TRUE(replace_link(dir / "best", "new")); },
                              [&] {
                                const std::string target = fs::read_symlink(dir / "best").string();
                                EXPECT_TRUE(target == "old" || target == "new") << target;
                              });
  EXPECT_GE(kills, 3);
}

void write_two_files(const std::string& target, const std::string& bytes,
                     AtomicDirectory::Existing existing) {
  AtomicDirectory directory(target, existing);
  for (const char* name : {"/a", "/b"}) write_file_atomically(directory.path() + name, bytes);
  directory.commit();
}

// The bytes of both files where they agree; empty: there is no directory.
std::string bytes_of_both(const std::string& directory) {
  if (!fs::exists(directory)) return "";
  EXPECT_THAT(names_in(directory), ElementsAre("a", "b"));
  const std::string a = test::read_file(directory + "/a");
  EXPECT_EQ(a, test::read_file(directory + "/b"));
  return a;
}

TEST(AKillAtAnyCall, LeavesANewDirectoryWholeOrAbsent) {
  TempDir dir;
  using enum AtomicDirectory::Existing;
  const auto kills =
      test::kill_at_each_call([&] { fs::remove_all(dir / "parent"); },
                              [&] { write_two_files(dir / "parent/out", "new", kRefuse); },
                              [&] {
                                const std::string bytes = bytes_of_both(dir / "parent/out");
                                EXPECT_TRUE(bytes.empty() || bytes == "new") << bytes;
                              });
  EXPECT_GE(kills, 15);
}

// Also where the file system cannot exchange, after the recovery that the next writer begins with.
TEST(AKillAtAnyCall, LeavesAReplacedDirectoryOldOrNew) {
  using enum AtomicDirectory::Existing;
  for (const bool exchanges : {true, false}) {
    SCOPED_TRACE(exchanges ? "by exchange" : "by two renames");
    TempDir dir;
    refuse_exchange(!exchanges);
    int recovered = 0;
    const auto kills =
        test::kill_at_each_call([&] { write_two_files(dir / "out", "old", kReplace); },
                                [&] { write_two_files(dir / "out", "new", kReplace); },
                                [&] {
                                  if (exchanges) {
                                    EXPECT_TRUE(fs::exists(dir / "out"));
                                  }
                                  recovered += fs::exists(dir / "out") ? 0 : 1;
                                  recover_replaced(dir.path(), any_name);
                                  const std::string bytes = bytes_of_both(dir / "out");
                                  EXPECT_TRUE(bytes == "old" || bytes == "new") << bytes;
                                  remove_partial(dir.path(), any_name);
                                  EXPECT_THAT(names_in(dir.path()), ElementsAre("out"));
                                });
    refuse_exchange(0);
    EXPECT_GE(kills, 15);
    EXPECT_EQ(recovered > 0, !exchanges);
  }
}

TEST(AKillAtAnyCall, LeavesARecoveryThatTheNextOneFinishes) {
  for (const bool new_is_there : {false, true}) {
    TempDir dir;
    test::kill_at_each_call(
        [&] {
          fs::remove_all(dir / "out");
          dir.write("out.before-replacement-0123456789abcdef/a", "old");
          dir.write("out.before-replacement-0123456789abcdef/b", "old");
          if (new_is_there) write_two_files(dir / "out", "new", AtomicDirectory::Existing::kRefuse);
        },
        [&] { recover_replaced(dir.path(), any_name); },
        [&] {
          recover_replaced(dir.path(), any_name);
          EXPECT_EQ(bytes_of_both(dir / "out"), new_is_there ? "new" : "old");
          EXPECT_THAT(names_in(dir.path()), ElementsAre("out"));
        });
  }
}

}  // namespace
}  // namespace qlora::io
