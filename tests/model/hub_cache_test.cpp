#include "model/hub_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// A cache as the hub's tools lay it out, and nothing else in the environment.
class HubCache : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"})
      unsetenv(name);
    setenv("HOME", (dir / "home").c_str(), 1);
  }
  void TearDown() override { SetUp(); }

  // A snapshot under the cache `root`; its directory.
  std::string add(const std::string& root, const std::string& commit, const std::string& ref) {
    const std::string repository = root + "/models--org--name";
    dir.write(repository + "/snapshots/" + commit + "/config.json", "{}");
    dir.write(repository + "/refs/" + ref, commit + "\n");
    return dir / (repository + "/snapshots/" + commit);
  }

  test::TempDir dir;
};

TEST_F(HubCache, AnExistingPathIsTakenAsItIs) {
  dir.write("model/config.json", "{}");
  EXPECT_EQ(resolve_model_path(dir / "model"), dir / "model");
}

TEST_F(HubCache, TheFourPlacesAreLookedInByRank) {
  const std::string home = add("home/.cache/huggingface/hub", "c0", "main");
  EXPECT_EQ(resolve_model_path("org/name"), home);
  const std::string xdg = add("xdg/huggingface/hub", "c1", "main");
  setenv("XDG_CACHE_HOME", (dir / "xdg").c_str(), 1);
  EXPECT_EQ(resolve_model_path("org/name"), xdg);
  const std::string hf_home = add("hf/hub", "c2", "main");
  setenv("HF_HOME", (dir / "hf").c_str(), 1);
  EXPECT_EQ(resolve_model_path("org/name"), hf_home);
  const std::string hub = add("cache", "c3", "main");
  setenv("HF_HUB_CACHE", (dir / "cache").c_str(), 1);
  EXPECT_EQ(resolve_model_path("org/name"), hub);
}

TEST_F(HubCache, ATildeAndTheOlderNameAreTakenAsTheHubsToolsTakeThem) {
  const std::string hf_home = add("home/hf/hub", "c2", "main");
  setenv("HF_HOME", "~/hf", 1);
  EXPECT_EQ(resolve_model_path("org/name"), hf_home);
  const std::string hub = add("cache", "c3", "main");
  setenv("HUGGINGFACE_HUB_CACHE", (dir / "cache").c_str(), 1);
  EXPECT_EQ(resolve_model_path("org/name"), hub);
}

TEST_F(HubCache, ARevisionIsARefOrACommit) {
  add("home/.cache/huggingface/hub", "aaa", "main");
  const std::string tagged = add("home/.cache/huggingface/hub", "bbb", "v2");
  EXPECT_EQ(resolve_model_path("org/name@v2"), tagged);
  EXPECT_EQ(resolve_model_path("org/name@bbb"), tagged);
}

TEST_F(HubCache, ARefMayHaveSlashes) {
  const std::string proposed = add("home/.cache/huggingface/hub", "ccc", "refs/pr/1");
  EXPECT_EQ(resolve_model_path("org/name@refs/pr/1"), proposed);
  EXPECT_THAT([] { resolve_model_path("org/name@refs/pr/2"); },
              ThrowsMessage<ConfigError>(HasSubstr("hf download org/name --revision refs/pr/2")));
  EXPECT_THROW(resolve_model_path("org/name@.."), ConfigError);  // the cache's own directory
}

TEST_F(HubCache, WhatIsNotThereGivesTheCommandThatDownloadsIt) {
  const auto refused =
      ThrowsMessage<ConfigError>(AllOf(HasSubstr("org/name"), HasSubstr("download")));
  EXPECT_THAT([] { resolve_model_path("org/name"); }, refused);
  add("home/.cache/huggingface/hub", "aaa", "main");
  EXPECT_THAT([] { resolve_model_path("org/name@v9"); }, refused);
  fs::remove_all(dir / "home/.cache/huggingface/hub/models--org--name/snapshots/aaa");
  EXPECT_THAT([] { resolve_model_path("org/name"); }, refused);  // a ref to nothing
}

TEST_F(HubCache, ARefThatLeadsElsewhereIsNotFollowed) {
  add("home/.cache/huggingface/hub", "aaa", "main");
  dir.write("home/.cache/huggingface/hub/models--org--name/refs/main", "../../../..");
  EXPECT_THROW(resolve_model_path("org/name"), ConfigError);
  dir.write("home/.cache/huggingface/hub/models--org--name/refs/main", "");
  EXPECT_THROW(resolve_model_path("org/name"), ConfigError);
}

TEST_F(HubCache, APathThatIsNoIdIsSimplyMissing) {
  for (const char* path : {"./org/name", "a/b/c", "org/model.gguf", "/org", "name"})
    EXPECT_THAT([&] { resolve_model_path(path); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr(path), HasSubstr("does not exist"))));
}

}  // namespace
}  // namespace qlora::model
