#include "trainer/late_number.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace qlora::trainer {
namespace {

TEST(LateNumber, IsKnownOnceItWasAskedFor) {
  const at::Tensor scalar = at::full({}, 6.0, at::kFloat);
  LateNumber late(scalar, 4);
  EXPECT_FALSE(late.is_known());
  EXPECT_EQ(late.get(), 1.5);
  EXPECT_TRUE(late.is_known());
  EXPECT_EQ(late.get(), 1.5);
  EXPECT_TRUE(LateNumber(2).is_known());
}

}  // namespace
}  // namespace qlora::trainer
