// What is left of weights whose writing is stopped on its way.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "base/stop.h"
#include "export/weight_files.h"
#include "io/atomic_write.h"
#include "tests/support/temp_dir.h"

namespace qlora::exporting {
namespace {

TEST(WeightFiles, WritingIsLeftBetweenTwoTensorsAndNothingStays) {
  const test::TempDir dir;
  std::atomic<bool> stop = false;
  const ObeyStop obey(stop);
  int made = 0;
  std::vector<WeightPart> parts;
  for (const char* name : {"a", "b", "c", "d"})
    parts.push_back({name, {8}, at::kFloat, [&] {
                       stop = ++made == 2;
                       return at::ones({8});
                     }});
  {
    const io::AtomicDirectory target(dir / "out");
    EXPECT_THROW(write_weight_files(target.path(), parts, "the test"), Stopped);
    EXPECT_FALSE(std::filesystem::is_empty(target.path()));
  }
  EXPECT_EQ(made, 2);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace qlora::exporting
