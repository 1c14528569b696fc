#include "base/path_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>

namespace qlora {
namespace {
using testing::ThrowsMessage;

TEST(PathError, IsForWrongPathsAndNotForDisksThatFail) {
  for (const int error : {ENOENT, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG})
    EXPECT_THROW(fail_on_path(error, "{} cannot be opened", "a"), PathError);
  for (const int error : {ENOSPC, EIO, EACCES, EROFS, EMFILE}) try {
      fail_on_path(error, "{} cannot be opened", "a");
    } catch (const PathError&) {
      ADD_FAILURE() << error;
    } catch (const IoError&) {
    }
}

TEST(PathError, EndsWithTheReason) {
  EXPECT_THAT([] { fail_on_path(ENOENT, "{} cannot be opened", "a/b"); },
              ThrowsMessage<PathError>("a/b cannot be opened: No such file or directory"));
}

std::string told_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const std::filesystem::filesystem_error& error) {
    return sentence_of(error);
  }
  return "";
}

TEST(PathError, WhatTheLibraryThrowsBecomesASentence) {
  namespace fs = std::filesystem;
  EXPECT_EQ(told_of([] { (void)fs::file_size("/missing/a"); }),
            "/missing/a cannot be read: No such file or directory");
  EXPECT_EQ(told_of([] { fs::directory_iterator("/missing"); }),
            "/missing cannot be read: No such file or directory");
  EXPECT_EQ(told_of([] { (void)fs::exists("/" + std::string(300, 'a')); }),
            "/" + std::string(300, 'a') + " cannot be read: File name too long");
  EXPECT_EQ(told_of([] { fs::rename("/missing/a", "/missing/b"); }),
            "/missing/b cannot be put in place: No such file or directory");
  EXPECT_EQ(told_of([] { fs::create_directories("/dev/null/a"); }),
            "/dev/null/a cannot be created: Not a directory");
  EXPECT_EQ(told_of([] { fs::remove("/proc/self/status"); }),
            "/proc/self/status cannot be removed: Operation not permitted");
}

}  // namespace
}  // namespace qlora
