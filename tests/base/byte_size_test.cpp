#include "base/byte_size.h"

#include <gtest/gtest.h>

namespace qlora {
namespace {

TEST(ByteSize, UnitsAreDecimalOrBinaryAsTheirNamesSay) {
  EXPECT_EQ(byte_size("16GB"), 16'000'000'000);
  EXPECT_EQ(byte_size("800 MB"), 800'000'000);
  EXPECT_EQ(byte_size("1.5GiB"), 3 * (int64_t{1} << 29));
  EXPECT_EQ(byte_size("2MiB"), 2 << 20);
  EXPECT_EQ(byte_size("1KB"), 1000);
  EXPECT_EQ(byte_size("4 KiB"), 4096);
  EXPECT_EQ(byte_size("5TB"), 5'000'000'000'000);
  EXPECT_EQ(byte_size("0.5TiB"), int64_t{1} << 39);
  EXPECT_EQ(byte_size("4096"), 4096);
}

TEST(ByteSize, TheUnitMayBeInSmallLettersOrOneLetter) {
  EXPECT_EQ(byte_size("8gb"), 8'000'000'000);
  EXPECT_EQ(byte_size("8Gb"), 8'000'000'000);
  EXPECT_EQ(byte_size("16G"), 16'000'000'000);
  EXPECT_EQ(byte_size("16 g"), 16'000'000'000);
  EXPECT_EQ(byte_size("512m"), 512'000'000);
  EXPECT_EQ(byte_size("5kb"), 5000);
  EXPECT_EQ(byte_size("2gib"), int64_t{2} << 30);
}

TEST(ByteSize, WhatIsNoSizeIsNone) {
  for (const char* text : {"", "GB", "much", "-1GB", "0", "5PB", "5Gi", "5 G B", "1e30", "nan"})
    EXPECT_EQ(byte_size(text), std::nullopt) << text;
}

TEST(ByteSize, RatesAreInBytesOrBits) {
  EXPECT_EQ(bytes_a_second("10GB/s"), 10e9);
  EXPECT_EQ(bytes_a_second("1.5 GiB/s"), 1.5 * (1 << 30));
  EXPECT_EQ(bytes_a_second("10Gbit/s"), 1.25e9);
  EXPECT_EQ(bytes_a_second("100 Mbit/s"), 12.5e6);
  EXPECT_EQ(bytes_a_second("64Kbit/s"), 8e3);
  for (const char* text : {"", "/s", "10GB", "10GBit/s", "10Gb/s", "10gb/s", "10G/s", "fast", "0/s",
                           "-1GB/s", "bit/s"})
    EXPECT_EQ(bytes_a_second(text), std::nullopt) << text;
}

}  // namespace
}  // namespace qlora
