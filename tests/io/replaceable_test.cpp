#include "io/replaceable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
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

}  // namespace
}  // namespace qlora::io
