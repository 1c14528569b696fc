#include "io/replaceable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "io/atomic_write.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(Replaceable, IsNothingAnEmptyFileAndWhatBeginsAlike) {
  const test::TempDir dir;
  for (const std::string& path :
       {dir / "absent", dir.write("empty", ""), dir.write("page", "<!-- made -->\nold")})
    EXPECT_NO_THROW(require_replaceable(path, "<!-- made -->", "page")) << path;
}

TEST(Replaceable, IsNoOtherFileNoDirectoryAndNoDevice) {
  const test::TempDir dir;
  std::filesystem::create_symlink(dir / "nowhere", dir / "link");
  std::filesystem::create_directory(dir / "folder");
  for (const std::string& path : {dir.write("thesis", "<!-- my own -->"), dir.write("short", "<!"),
                                  dir / "link", dir / "folder", std::string("/dev/null")})
    EXPECT_THAT([&] { require_replaceable(path, "<!-- made -->", "page"); },
                ThrowsMessage<ConfigError>(
                    HasSubstr(path + " exists and is no page of this program; name another")));
}

TEST(Replaceable, ANewFileHasNothingInItsPlace) {
  const test::TempDir dir;
  EXPECT_NO_THROW(require_new(dir / "absent"));
  std::filesystem::create_symlink(dir / "nowhere", dir / "link");
  for (const std::string& path : {dir.write("empty", ""), dir / "link"})
    EXPECT_THAT([&] { require_new(path); },
                ThrowsMessage<ConfigError>(path + " exists; name another file"));
}

TEST(ObstacleToReplacing, IsLookedForWithoutAChange) {
  const test::TempDir dir;
  const std::string path = dir / "empty";
  std::filesystem::create_directory(path);
  struct stat before {
  }, after{};
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  require_free_directory(path);
  ASSERT_EQ(stat(path.c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_EQ(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
}

TEST(ObstacleToReplacing, IsTheLackOfANameAndALink) {
  const test::TempDir dir;
  std::filesystem::create_directory(dir / "empty");
  std::filesystem::create_directory_symlink(dir / "empty", dir / "link");
  EXPECT_EQ(obstacle_to_replacing(dir / "empty"), "");
  EXPECT_EQ(obstacle_to_replacing(dir / "empty/."), "has no name of its own");
  EXPECT_EQ(obstacle_to_replacing("/"), "has no name of its own");
  EXPECT_EQ(obstacle_to_replacing(dir / "link"), "is a link or a mount point");
  EXPECT_EQ(obstacle_to_replacing("/proc"), "is a link or a mount point");
}

// One that shows a directory of the same file system, in a process that sees it alone. Where the
// system lets nobody mount, no such thing can be met either.
TEST(ObstacleToReplacing, IsAMountPoint) {
  const test::TempDir dir;
  for (const char* name : {"shown", "point"}) std::filesystem::create_directory(dir / name);
  const pid_t child = fork();
  if (child == 0) {
    const bool mounted =
        (unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        mount((dir / "shown").c_str(), (dir / "point").c_str(), nullptr, MS_BIND, nullptr) == 0;
    if (!mounted) _exit(2);
    _exit(obstacle_to_replacing(dir / "point") == "is a link or a mount point" ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 2) GTEST_SKIP() << "nobody may mount here";
  EXPECT_EQ(status, 0);
}

// Each as a user who owns neither, where the test may become one.
TEST(ObstacleToReplacing, IsADirectoryAboveThatMayNotBeChanged) {
  const test::TempDir dir;
  for (const char* name : {"closed/empty", "common/empty", "open/empty"})
    std::filesystem::create_directories(dir / name);
  chmod(dir.path().c_str(), 0755);
  chmod((dir / "closed").c_str(), 0555);
  chmod((dir / "common").c_str(), 01777);
  chmod((dir / "open").c_str(), 0777);
  const pid_t child = fork();
  if (child == 0) {
    const bool is_other = geteuid() == 0 && setuid(65534) == 0;
    if (access((dir / "open").c_str(), W_OK | X_OK) != 0) _exit(8);
    const bool closed = geteuid() == 0 ||  // who may change all
                        obstacle_to_replacing(dir / "closed/empty") ==
                            "lies in " + (dir / "closed") + ", where nothing may be changed";
    const std::string common = obstacle_to_replacing(dir / "common/empty");
    const bool sticks = !is_other || common.starts_with("is another user's, and lies in ");
    const bool open = obstacle_to_replacing(dir / "open/empty").empty();
    _exit((closed ? 0 : 1) + (sticks ? 0 : 2) + (open ? 0 : 4));
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 8)
    GTEST_SKIP() << dir.path() << " is closed to other users";
  EXPECT_EQ(status, 0);
  chmod((dir / "closed").c_str(), 0755);
}

TEST(RequirePlace, NamesWhatIsInTheWayOfSomethingNew) {
  const test::TempDir dir;
  const std::string file = dir.write("file", "x");
  EXPECT_NO_THROW(require_place(dir / "new"));
  EXPECT_NO_THROW(require_place(dir / "a/b/new/"));
  EXPECT_THAT([&] { require_place(file + "/below/new"); },
              testing::ThrowsMessage<ConfigError>(
                  testing::HasSubstr(file + " must be a directory, but is a file")));
}

TEST(RequirePlace, AsksForNamesThatTheFileSystemTakesAlsoWhileTheyAreHalfMade) {
  const test::TempDir dir;
  const long limit = pathconf(dir.path().c_str(), _PC_NAME_MAX);
  if (limit <= 0) GTEST_SKIP() << "the file system takes names of any length";
  const std::string longest(static_cast<size_t>(limit), 'n');
  EXPECT_NO_THROW(require_place(dir / (longest + "/new")));
  constexpr size_t kMark = 36;  // ".before-replacement-0123456789abcdef"
  EXPECT_NO_THROW(require_place(dir / longest.substr(kMark)));
  EXPECT_THAT(
      [&] { require_place(dir / longest.substr(kMark - 1)); },
      ThrowsMessage<ConfigError>(HasSubstr("must have at most " + std::to_string(limit - 36) +
                                           " bytes, found " + std::to_string(limit - 35))));
  EXPECT_THROW(require_place(dir / (longest + "n/new")), ConfigError);
}

TEST(RequirePlace, AboveALinkIsWhatIsAboveItsEnd) {
  const test::TempDir dir;
  std::filesystem::create_directories(dir / "real/inner");
  std::filesystem::create_directories(dir / "real/runs");
  std::filesystem::create_directory_symlink(dir / "real/inner", dir / "link");
  dir.write("runs", "a file");
  EXPECT_NO_THROW(require_place(dir / "link/../runs/new"));
  std::filesystem::remove(dir / "real/runs");
  dir.write("real/runs", "a file");
  EXPECT_THROW(require_place(dir / "link/../runs/new"), ConfigError);
}

// As another user, where the test may become one.
TEST(RequirePlace, SaysWhetherADirectoryMayNotBeWrittenToOrNotBeEntered) {
  const test::TempDir dir;
  chmod(dir.path().c_str(), 0755);
  for (const char* name : {"closed", "barred"}) std::filesystem::create_directory(dir / name);
  chmod((dir / "closed").c_str(), 0555);
  chmod((dir / "barred").c_str(), 0666);
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(0);  // who may do all
    const auto is_told = [&](const char* name, const std::string& end) {
      try {
        require_place(dir / (std::string(name) + "/new"));
      } catch (const Error& error) {
        return std::string(error.what()).find((dir / name) + " may be " + end) != std::string::npos;
      }
      return false;
    };
    _exit((is_told("closed", "written to") ? 0 : 1) + (is_told("barred", "entered") ? 0 : 2));
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(RequirePlace, IsAskedByADirectoryBeforeItIsWorkedFor) {
  const test::TempDir dir;
  EXPECT_THROW(require_free_directory(""), ConfigError);
  const long limit = pathconf(dir.path().c_str(), _PC_NAME_MAX);
  if (limit > 0) {
    const std::string longest(static_cast<size_t>(limit), 'n');
    EXPECT_THROW(require_free_directory(dir / longest), ConfigError);
  }
  EXPECT_THROW(require_free_directory(dir.write("file", "x") + "/below"), ConfigError);
  dir.write("full/file", "x");
  EXPECT_THROW(require_free_directory(dir / "missing/../full"), ConfigError);
  EXPECT_FALSE(std::filesystem::exists(dir / "missing"));
  EXPECT_NO_THROW(require_free_directory(dir / "missing/../new"));
}

}  // namespace
}  // namespace qlora::io
