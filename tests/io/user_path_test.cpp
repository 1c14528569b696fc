#include "io/user_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"

namespace qlora::io {
namespace {

TEST(UserPath, ATildeInFrontIsTheHomeDirectory) {
  const std::string kept = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
  setenv("HOME", "/home/ann", 1);
  EXPECT_EQ(expand_home("~/runs/a"), "/home/ann/runs/a");
  EXPECT_EQ(expand_home("~"), "/home/ann");
  for (const char* path : {"", "a/~/b", "./~", "/a~", "rows~.jsonl"})
    EXPECT_EQ(expand_home(path), path);
  EXPECT_THROW(expand_home("~bob/runs"), ConfigError);
  unsetenv("HOME");
  EXPECT_THROW(expand_home("~/runs"), ConfigError);
  EXPECT_EQ(expand_home("runs"), "runs");
  setenv("HOME", kept.c_str(), 1);
}

TEST(UserDirectory, IsNamedInFullByTheVariableOrLiesInTheHome) {
  const std::string kept = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
  constexpr const char* kVariable = "QLORA_TEST_CACHE_HOME";
  setenv("HOME", "/home/ann", 1);
  EXPECT_EQ(user_directory(kVariable, ".cache"), "/home/ann/.cache");
  setenv(kVariable, "/big", 1);
  EXPECT_EQ(user_directory(kVariable, ".cache"), "/big");
  for (const char* ignored : {"", "relative/cache", "~/cache"}) {
    setenv(kVariable, ignored, 1);
    EXPECT_EQ(user_directory(kVariable, ".cache"), "/home/ann/.cache");
  }
  setenv("HOME", "ann", 1);
  EXPECT_EQ(user_directory(kVariable, ".cache"), "");
  unsetenv("HOME");
  EXPECT_EQ(user_directory(kVariable, ".cache"), "");
  unsetenv(kVariable);
  setenv("HOME", kept.c_str(), 1);
}

TEST(LastPart, IsTheNameOfAFileOrDirectory) {
  EXPECT_EQ(last_part("/models/llama"), "llama");
  EXPECT_EQ(last_part("/models/llama/"), "llama");
  EXPECT_EQ(last_part("models/./m.gguf"), "m.gguf");
  EXPECT_EQ(last_part("m.gguf"), "m.gguf");
  EXPECT_EQ(last_part(""), "");
}

}  // namespace
}  // namespace qlora::io
