#include "io/take_access.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cstring>
#include <filesystem>

#include "io/atomic_write.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;
using test::TempDir;

mode_t mode_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777;
}

TEST(TakeAccess, AFileKeepsItsModeWhenItIsWrittenAnew) {
  const TempDir dir;
  for (const mode_t mode : {0600, 0440, 0664}) {
    const std::string path = dir.write("a", "old");
    chmod(path.c_str(), mode);
    write_file_atomically(path, "new");
    EXPECT_EQ(test::read_file(path), "new");
    EXPECT_EQ(mode_of(path), mode);
    fs::remove(path);
  }
}

TEST(TakeAccess, ANewFileIsForAllToRead) {
  const TempDir dir;
  const mode_t before = umask(022);
  write_file_atomically(dir / "a", "new");
  umask(before);
  EXPECT_EQ(mode_of(dir / "a"), 0644u);
}

TEST(TakeAccess, ALinkSaysNothingOfTheFileThatTakesItsPlace) {
  const TempDir dir;
  const mode_t before = umask(022);
  chmod(dir.write("private", "x").c_str(), 0600);
  fs::create_symlink(dir / "private", dir / "a");
  write_file_atomically(dir / "a", "new");
  umask(before);
  EXPECT_EQ(mode_of(dir / "a"), 0644u);
}

TEST(TakeAccess, AnEmptyDirectoryThatTheUserMadeKeepsItsMode) {
  for (const auto& [mode, expected] :
       {std::pair{0700, 0700u}, {02770, 02770u}, {01777, 01777u}, {0500, 0700u}}) {
    const TempDir dir;
    const std::string path = dir / "out";
    fs::create_directory(path);
    chmod(path.c_str(), static_cast<mode_t>(mode));
    AtomicDirectory made(path);
    EXPECT_EQ(mode_of(made.path()), expected);  // from the first: what lies in it is as private
    write_file_atomically(made.path() + "/a", "bytes");
    made.commit();
    EXPECT_EQ(mode_of(path), expected);
  }
}

TEST(TakeAccess, ADirectoryThatIsReplacedKeepsItsMode) {
  const TempDir dir;
  dir.write("out/a", "old");
  chmod((dir / "out").c_str(), 0710);
  AtomicDirectory made(dir / "out", AtomicDirectory::Existing::kReplace);
  write_file_atomically(made.path() + "/a", "new");
  made.commit();
  EXPECT_EQ(test::read_file(dir / "out/a"), "new");
  EXPECT_EQ(mode_of(dir / "out"), 0710u);
}

// The bytes of an access control list that lets user 12345 read, as setxattr takes them.
std::string list_with_a_reader() {
  struct Entry {
    uint16_t tag, may;
    uint32_t id;
  };
  constexpr uint32_t kNobody = 0xffffffff;
  constexpr Entry kEntries[] = {
      {1, 7, kNobody}, {2, 4, 12345}, {4, 0, kNobody}, {16, 4, kNobody}, {32, 0, kNobody}};
  const uint32_t version = 2;
  std::string bytes(sizeof version + sizeof kEntries, '\0');
  std::memcpy(bytes.data(), &version, sizeof version);
  std::memcpy(bytes.data() + sizeof version, kEntries, sizeof kEntries);
  return bytes;
}

std::string attribute(const std::string& path, const char* name) {
  std::string value(1000, '\0');
  const ssize_t size = getxattr(path.c_str(), name, value.data(), value.size());
  return size < 0 ? "" : value.substr(0, static_cast<size_t>(size));
}

// A file system without such lists has none before and after.
TEST(TakeAccess, AccessControlListsStay) {
  const TempDir dir;
  fs::create_directory(dir / "out");
  const std::string list = list_with_a_reader();
  std::vector<std::string> before, after;
  for (const char* name : {"system.posix_acl_access", "system.posix_acl_default"}) {
    setxattr((dir / "out").c_str(), name, list.data(), list.size(), 0);
    before.push_back(attribute(dir / "out", name));
  }
  const mode_t mode = mode_of(dir / "out");
  AtomicDirectory(dir / "out").commit();
  for (const char* name : {"system.posix_acl_access", "system.posix_acl_default"})
    after.push_back(attribute(dir / "out", name));
  EXPECT_EQ(after, before);
  EXPECT_EQ(mode_of(dir / "out"), mode);
}

}  // namespace
}  // namespace qlora::io
