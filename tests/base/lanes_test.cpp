#include "base/lanes.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

namespace qlora {
namespace {

// What load_pair gives, in the order of memory; compiled for each instruction set.
QLORA_VECTORIZED void widen_all(const Float16* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += 2 * kLanes) {
    Lanes even, odd;
    load_pair(from + i, even, odd);
    for (int j = 0; j < kLanes; ++j) {
      to[i + 2 * j] = even[j];
      to[i + 2 * j + 1] = odd[j];
    }
  }
}

TEST(Lanes, EveryFloat16IsWidenedExactly) {
  constexpr int64_t kCount = 1 << 16;
  std::vector<Float16> halves(kCount);
  std::vector<float> floats(kCount);
  for (int64_t i = 0; i < kCount; ++i) halves[i] = std::bit_cast<Float16>(static_cast<uint16_t>(i));
  widen_all(halves.data(), kCount, floats.data());
  for (int64_t i = 0; i < kCount; ++i) {
    const auto expected = static_cast<float>(halves[i]);
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(floats[i])) << i;
    else
      EXPECT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(expected)) << i;
  }
}

}  // namespace
}  // namespace qlora
