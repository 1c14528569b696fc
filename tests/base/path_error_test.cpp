#include "base/path_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

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

}  // namespace
}  // namespace qlora
