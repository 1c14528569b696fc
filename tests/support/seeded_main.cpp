// main() of the test programs that use torch: its default generator starts from the system's
// entropy, and a test must be the same in every run.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/short_waits.h"

namespace {

struct SeedEachTest : testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override { at::manual_seed(1); }
};

QLORA_SHORT_WAITS

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::UnitTest::GetInstance()->listeners().Append(new SeedEachTest);  // gtest deletes it
  return RUN_ALL_TESTS();
}
