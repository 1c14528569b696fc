#include "io/scratch_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {

TEST(ScratchMemory, IsZeroKeepsWhatIsWrittenAndHasNoName) {
  const test::TempDir dir;
  const ScratchMemory memory(dir.path(), 100'000);
  const auto bytes = memory.bytes();
  ASSERT_EQ(bytes.size(), 100'000u);
  EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
  bytes[99'999] = std::byte{7};
  EXPECT_EQ(memory.bytes()[99'999], std::byte{7});
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(ScratchMemory, AFolderThatIsNotThereAndADiskThatIsTooSmallAreErrors) {
  const test::TempDir dir;
  EXPECT_THROW(ScratchMemory(dir / "missing", 4096), IoError);
  EXPECT_THROW(ScratchMemory(dir.path(), size_t{1} << 60), IoError);
}

}  // namespace
}  // namespace qlora::io
