#include "base/hub_id.h"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace qlora {
namespace {

TEST(HubId, HasAnOrganisationANameAndPerhapsARevision) {
  const auto plain = hub_id_of("org-1/some.name_2");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->id, "org-1/some.name_2");
  EXPECT_EQ(plain->revision, "");
  const auto revised = hub_id_of("org/name@v1.0");
  ASSERT_TRUE(revised);
  EXPECT_EQ(revised->id, "org/name");
  EXPECT_EQ(revised->revision, "v1.0");
}

TEST(HubId, ARevisionMayHaveSlashes) {
  for (const char* revision : {"refs/pr/1", "refs/convert/parquet", "feature/long-rows.2"}) {
    const auto hub = hub_id_of(std::string("org/name@") + revision);
    ASSERT_TRUE(hub) << revision;
    EXPECT_EQ(hub->id, "org/name");
    EXPECT_EQ(hub->revision, revision);
  }
}

TEST(HubId, OtherFormsAreNone) {
  for (const char* text : {"",
                           "name",
                           "/org",
                           "org/",
                           "a/b/c",
                           "./org",
                           "../org",
                           "org/name@",
                           "@v1/name",
                           "org@v1/name",
                           "org/@v1",
                           "a/b/c@v1",
                           "org/name@v1@v2",
                           "org/name@.hidden",
                           "org/name@..",
                           "org/name@../v1",
                           "org/name@refs/../../v1",
                           "org/name@/v1",
                           "org/name@refs//v1",
                           "org/name@refs/",
                           "org/my name",
                           "org/model.gguf",
                           "C:/name"})
    EXPECT_FALSE(hub_id_of(text)) << text;
}

TEST(HubId, APathThatIsThereIsNone) {
  EXPECT_TRUE(hub_id_of("tests-of-this-program/nowhere"));
  const test::TempDir dir;
  dir.write("org/name@v1/config.json", "{}");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  EXPECT_FALSE(hub_id_of("org/name@v1"));
  EXPECT_TRUE(hub_id_of("org/name@v2"));
  std::filesystem::current_path(before);
}

}  // namespace
}  // namespace qlora
