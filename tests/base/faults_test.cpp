#include "base/faults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora {
namespace {

TEST(Faults, AreToldTogetherEachOnce) {
  Faults faults;
  EXPECT_NO_THROW(faults.throw_if_any());
  faults.add("a.b must be {}, got {}", 1, 2);
  faults.add("a.b must be {}, got {}", 1, 2);
  EXPECT_FALSE(faults.collect([] { fail<ConfigError>("a.c is missing"); }));
  EXPECT_TRUE(faults.collect([] {}));
  EXPECT_THROW(faults.collect([] { fail<IoError>("disk"); }), IoError) << "no fault of options";
  EXPECT_THAT([&] { faults.throw_if_any(); },
              testing::ThrowsMessage<ConfigError>("a.b must be 1, got 2\na.c is missing"));
}

}  // namespace
}  // namespace qlora
