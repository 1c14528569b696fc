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

TEST(HubId, ANameAloneIsOneWithACommitBehindIt) {
  const std::string commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
  const auto hub = hub_id_of("gpt2@" + commit);
  ASSERT_TRUE(hub);
  EXPECT_EQ(hub->id, "gpt2");
  EXPECT_EQ(hub->revision, commit);
  EXPECT_FALSE(hub_id_of("gpt2@main"));
  EXPECT_EQ(hub_folder("gpt2"), "models--gpt2");
  EXPECT_EQ(hub_folder("org/my-model"), "models--org--my-model");
}

TEST(HubFile, IsTheModelThatASnapshotOfTheCacheBelongsTo) {
  const auto snapshot = hub_file_of("/home/me/hub/models--org--some.name_2/snapshots/abc123/");
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->hub.id, "org/some.name_2");
  EXPECT_EQ(snapshot->hub.revision, "abc123");
  EXPECT_EQ(snapshot->file, "");
  const auto file = hub_file_of("hub/models--org--name/snapshots/abc/q4/./model.Q4_1.gguf");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->hub.id, "org/name");
  EXPECT_EQ(file->file, "q4/model.Q4_1.gguf");
  for (const char* path :
       {"", "/", "org/name", "/models/name", "models--org--name", "models--org--name/snapshots",
        "models--org--name/refs/main", "models----name/snapshots/abc", "models--/snapshots/abc",
        "datasets--org--name/snapshots/abc", "models--org--name/x/snapshots/abc"})
    EXPECT_FALSE(hub_file_of(path)) << path;
}

TEST(HubFile, ItsModelIsCalledByItsIdAndAnyOtherAsItIs) {
  EXPECT_EQ(with_hub_id("/hub/models--org--name/snapshots/abc"), "org/name@abc");
  EXPECT_EQ(with_hub_id("/hub/models--org--name/snapshots/abc/m.gguf"), "org/name@abc");
  const std::string commit(40, 'a');
  EXPECT_EQ(with_hub_id("/hub/models--gpt2/snapshots/" + commit), "gpt2@" + commit);
  for (const char* other :
       {"org/name", "org/name@v1", "/models/name", "m.gguf", "", "/hub/models--gpt2/snapshots/abc",
        "/hub/models--org--name/snapshots/abc/original"})
    EXPECT_EQ(with_hub_id(other), other);
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
