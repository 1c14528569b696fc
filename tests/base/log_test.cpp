// Where the lines for people go, and that they never stand in the way of the work.
#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/path_error.h"
#include "tests/support/temp_dir.h"

namespace qlora::log {
namespace {

TEST(Log, OnceAFileIsOpenItGetsEveryLineAfterWhatItHeld) {
  const test::TempDir dir;
  const std::string path = dir.write("log.txt", "from before\n");
  open_file(path);
  info("a {}", "line");
  warning("another");
  close_file();
  info("not in the file");
  const std::string text = test::read_file(path);
  EXPECT_TRUE(text.starts_with("from before\n"));
  EXPECT_NE(text.find("info a line\n"), std::string::npos) << text;
  EXPECT_NE(text.find("warning another\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("not in the file"), std::string::npos) << text;
}

TEST(Log, AFileThatCannotBeOpenedIsNamed) {
  const test::TempDir dir;
  EXPECT_THAT([&] { open_file(dir.path()); },
              testing::ThrowsMessage<PathError>(
                  testing::EndsWith(" cannot be opened for writing: Is a directory")));
  EXPECT_NO_THROW(info("a line for the terminal alone"));
}

TEST(Log, AFullDiskDoesNotEndTheWork) {
  open_file("/dev/full");
  EXPECT_NO_THROW(info("a line that has no room"));
  EXPECT_NO_THROW(warning("another"));
  close_file();
}

}  // namespace
}  // namespace qlora::log
