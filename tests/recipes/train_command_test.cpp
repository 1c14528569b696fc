#include "recipes/run_files/train_command.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

namespace qlora::recipes {
namespace {

TEST(TrainCommand, NamesTheDirectoryInWhichTheRunLies) {
  EXPECT_EQ(train_command("/runs/a-1"),
            "qlora train /runs/a-1/recipe.resolved.yaml --set output.dir=/runs/a-1");
}

// A shell reads the word, and then YAML its value.
TEST(TrainCommand, WhatAShellOrYamlWouldReadIsInQuotes) {
  EXPECT_EQ(train_command("/runs/my run: #1"),
            "qlora train '/runs/my run: #1/recipe.resolved.yaml' --set "
            "'output.dir=\"/runs/my run: #1\"'");
  EXPECT_EQ(train_command("/it's"),
            "qlora train '/it'\\''s/recipe.resolved.yaml' --set 'output.dir=\"/it'\\''s\"'");
}

TEST(TrainCommand, ARelativeDirectoryIsNamedFromTheRoot) {
  const std::string whole = train_command((std::filesystem::current_path() / "run").string());
  EXPECT_EQ(train_command("run"),
            "qlora train run/recipe.resolved.yaml" + whole.substr(whole.find(" --set ")));
}

}  // namespace
}  // namespace qlora::recipes
