#include "io/read_rate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {

TEST(ReadRate, IsAPositiveNumberOfFilesOfAnySize) {
  const test::TempDir dir;
  for (const size_t size : {1u, 4096u, 5u << 20, 20u << 20}) {
    const double rate = read_rate(dir.write("file", std::string(size, 'x')));
    EXPECT_GT(rate, 0) << size;
    EXPECT_TRUE(std::isfinite(rate)) << size;
  }
}

TEST(ReadRate, AFileThatIsNotThereOrEmptyIsNamed) {
  const test::TempDir dir;
  EXPECT_THROW(read_rate(dir / "gone"), IoError);
  EXPECT_THROW(read_rate(dir.write("empty", "")), IoError);
}

}  // namespace
}  // namespace qlora::io
