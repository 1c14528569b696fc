#include "base/byte_size.h"

#include <gtest/gtest.h>

namespace qlora {
namespace {

TEST(ByteSize, UnitsAreDecimalOrBinaryAsTheirNamesSay) {
  EXPECT_EQ(byte_size("16GB"), 16'000'000'000);
  EXPECT_EQ(byte_size("800 MB"), 800'000'000);
  EXPECT_EQ(byte_size("1.5GiB"), 3 * (int64_t{1} << 29));
  EXPECT_EQ(byte_size("2MiB"), 2 << 20);
  EXPECT_EQ(byte_size("4096"), 4096);
}

TEST(ByteSize, WhatIsNoSizeIsNone) {
  for (const char* text : {"", "GB", "much", "-1GB", "0", "5TB", "5 G B", "1e30", "nan"})
    EXPECT_EQ(byte_size(text), std::nullopt) << text;
}

}  // namespace
}  // namespace qlora
