#include "recipes/run_files/last_save.h"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace qlora::recipes {
namespace {

TEST(LastSave, IsTheStepThatWasNotedLast) {
  const test::TempDir dir;
  note_last_save(dir.path(), 0);
  EXPECT_EQ(last_save(dir.path()), 0);
  note_last_save(dir.path(), 150);
  EXPECT_EQ(last_save(dir.path()), 150);
}

TEST(LastSave, IsNothingWhereNothingIsNotedOrTheNoteSaysNothing) {
  const test::TempDir dir;
  EXPECT_EQ(last_save(dir.path()), std::nullopt);
  EXPECT_EQ(last_save(dir / "absent"), std::nullopt);
  for (const char* text : {"", "{", "[]", "{}", "{\"step\": \"4\"}", "{\"step\": 1.5}"}) {
    dir.write(kLastSave, text);
    EXPECT_EQ(last_save(dir.path()), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace qlora::recipes
