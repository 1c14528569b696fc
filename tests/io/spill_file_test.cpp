#include "io/spill_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <vector>

#include "base/error.h"
#include "io/mapped_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<std::byte> pattern(size_t size, int seed) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>((i * 31 + static_cast<size_t>(seed) * 7) % 251);
  return bytes;
}

TEST(SpillFile, WhatIsAppendedIsReadFromWhereItLies) {
  const TempDir dir;
  SpillFile file(dir.path(), 1000);
  std::vector<std::span<const std::byte>> spans;
  for (const size_t size : {1u, 63u, 64u, 65u, 70000u})
    spans.push_back(file.append(pattern(size, 3)));
  for (const auto& span : spans) {
    EXPECT_TRUE(std::ranges::equal(span, pattern(span.size(), 3))) << span.size();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(span.data()) % 64, 0u) << span.size();
  }
  EXPECT_EQ(file.bytes(), 1 + 63 + 64 + 65 + 70000);
}

TEST(SpillFile, EarlierBytesStayWhereTheyAreWhenTheFileGrowsPastItsFirstPart) {
  const TempDir dir;
  SpillFile file(dir.path(), 0);
  const auto small = pattern(1000, 1), large = pattern(size_t{70} << 20, 2);
  const auto first = file.append(small), second = file.append(large), third = file.append(small);
  EXPECT_TRUE(std::ranges::equal(first, small));
  EXPECT_TRUE(std::ranges::equal(second, large));
  EXPECT_TRUE(std::ranges::equal(third, small));
}

// More parts than io/live_mappings.h has room for would be lost without a word about the disk.
TEST(SpillFile, HasFewPartsHoweverLargeItIs) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  EXPECT_EQ(spill_region_bytes(0, 1), 64 * kMiB);
  EXPECT_EQ(spill_region_bytes(64 * kMiB, 70 * kMiB), 128 * kMiB);
  int parts = 0;
  for (int64_t offset = 0; offset < 2 * kMiB * kMiB; ++parts)  // 2 TiB
    offset += spill_region_bytes(offset, kMiB);
  EXPECT_LT(parts, 256);
}

TEST(SpillFile, DroppedPagesComeBackAsTheyWere) {
  const TempDir dir;
  SpillFile file(dir.path(), 0);
  const auto bytes = pattern(50000, 5);
  const auto span = file.append(bytes);
  for (int i = 0; i < 2; ++i) {
    drop_touched_pages(span);
    read_ahead(span);
    EXPECT_TRUE(std::ranges::equal(span, bytes));
  }
}

TEST(SpillFile, ABlockBeginsAPageWhereThatIsAskedFor) {
  const TempDir dir;
  SpillFile file(dir.path(), 0);
  file.begin_page();
  file.append(pattern(100, 1));
  file.begin_page();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.append(pattern(100, 2)).data()) % 4096, 0u);
}

TEST(SpillFile, TheFileHasNoNameAndItsDirectoryIsMade) {
  const TempDir dir;
  SpillFile file(dir / "a/b", 0);
  file.append(pattern(100, 1));
  EXPECT_TRUE(std::filesystem::is_empty(dir / "a/b"));
}

TEST(SpillFile, TooLittleRoomIsToldBeforeAnythingIsWritten) {
  const TempDir dir;
  EXPECT_THAT([&] { SpillFile(dir.path(), std::numeric_limits<int64_t>::max()); },
              ThrowsMessage<IoError>(AllOf(HasSubstr(dir.path()), HasSubstr("are free"),
                                           HasSubstr("model.offload_dir"))));
  EXPECT_THAT([&] { SpillFile(dir.write("file", "x"), 0); },
              ThrowsMessage<IoError>(HasSubstr("cannot be made")));
}

}  // namespace
}  // namespace qlora::io
