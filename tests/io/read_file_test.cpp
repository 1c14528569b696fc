#include "io/read_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/path_error.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {
using testing::ThrowsMessage;

TEST(ReadFile, GivesAllBytes) {
  const test::TempDir dir;
  const std::string bytes("a\0\nb", 4);
  EXPECT_EQ(read_bytes(dir.write("a", bytes)), bytes);
  EXPECT_EQ(read_bytes(dir.write("empty", "")), "");
}

TEST(ReadFile, WhatIsNotThereOrIsADirectoryIsAWrongPath) {
  const test::TempDir dir;
  EXPECT_THROW(read_bytes(dir / "missing"), PathError);
  EXPECT_THROW(read_bytes(dir.path()), PathError);
}

// The first page of a process's memory is none.
TEST(ReadFile, AReadThatFailsNamesTheFile) {
  EXPECT_THAT([] { read_bytes("/proc/self/mem"); },
              ThrowsMessage<IoError>("/proc/self/mem cannot be read: Input/output error"));
}

}  // namespace
}  // namespace qlora::io
