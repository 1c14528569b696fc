// Which adapter of a run the commands take that use it.
#include "recipes/run_files/run_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "recipes/models/trained_model.h"
#include "tests/support/two_step_run.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

class RunAdapters : public test::TwoStepRun {
 protected:
  void SetUp() override { train(); }
  std::string run() const { return recipe.output.dir; }
  std::string named(const std::string& checkpoint) const {
    return adapter_of_run(run(), checkpoint);
  }
};

TEST_F(RunAdapters, AnUnfinishedRunGivesThatOfItsLastCheckpoint) {
  fs::remove_all(run() + "/adapter");
  EXPECT_EQ(adapter_of_run(run()), run() + "/checkpoint-000002/adapter");
  for (const char* name : {"/checkpoint-000001", "/checkpoint-000002"})
    fs::remove_all(run() + name);
  EXPECT_THROW(adapter_of_run(run()), ConfigError);
  EXPECT_TRUE(fs::exists(run() + "/recipe.resolved.yaml"));
}

TEST_F(RunAdapters, ANamedCheckpointGivesItsOwnByNameAndByPath) {
  EXPECT_EQ(adapter_of_run(run()), run() + "/adapter");
  EXPECT_EQ(named("checkpoint-000001"), run() + "/checkpoint-000001/adapter");
  EXPECT_EQ(named(run() + "/checkpoint-000001"), run() + "/checkpoint-000001/adapter");
  EXPECT_EQ(fs::canonical(named("best/")),
            fs::canonical(run() + "/" + fs::read_symlink(run() + "/best").string() + "/adapter"));
}

TEST_F(RunAdapters, ACheckpointThatLiesOnAnotherDiskIsTheRunsOwnAllTheSame) {
  trainer::point_best_at(run(), 1);
  fs::rename(run() + "/checkpoint-000001", dir / "elsewhere");
  fs::create_directory_symlink(dir / "elsewhere", run() + "/checkpoint-000001");
  for (const char* name : {"checkpoint-000001", "checkpoint-000001/", "best"})
    EXPECT_EQ(named(name), run() + "/checkpoint-000001/adapter") << name;
  EXPECT_EQ(step_of_adapter(named("best")), 1);
}

TEST_F(RunAdapters, ABestThatLeadsToACheckpointOfAnotherRunIsNeitherTakenNorListed) {
  fs::copy(run(), dir / "other", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove(run() + "/best");
  fs::create_directory_symlink(dir / "other/checkpoint-000001", run() + "/best");
  EXPECT_THAT(
      [&] { named("best"); },
      ThrowsMessage<ConfigError>(HasSubstr("it holds: checkpoint-000001, checkpoint-000002")));
  fs::remove(run() + "/best");
  fs::create_directory_symlink("checkpoint-000001", run() + "/best");
  fs::create_directory_symlink(run() + "/best", dir / "link-to-a-link");
  EXPECT_EQ(named(dir / "link-to-a-link"), run() + "/checkpoint-000001/adapter");
}

void change_a_byte(const std::string& path) {
  std::string bytes = test::read_file(path);
  bytes[bytes.size() - 2] ^= 1;
  std::ofstream(path) << bytes;
}

TEST_F(RunAdapters, ACheckpointOfWhichAByteChangedIsPassedOverOrRefusedWhereItIsNamed) {
  fs::remove_all(run() + "/adapter");
  change_a_byte(run() + "/checkpoint-000002/optimizer.safetensors");  // is not used
  EXPECT_EQ(adapter_of_run(run()), run() + "/checkpoint-000002/adapter");
  change_a_byte(run() + "/checkpoint-000002/adapter/adapter_model.safetensors");
  EXPECT_EQ(adapter_of_run(run()), run() + "/checkpoint-000001/adapter");
  EXPECT_THAT([&] { named("checkpoint-000002"); },
              ThrowsMessage<FormatError>(
                  HasSubstr("adapter/adapter_model.safetensors has changed since it was written")));
}

TEST_F(RunAdapters, TheStepIsThatOfTheCheckpoint) {
  EXPECT_EQ(step_of_adapter(run() + "/adapter"), std::nullopt);
  EXPECT_EQ(step_of_adapter(named("checkpoint-000001")), 1);
  EXPECT_EQ(step_of_adapter(run() + "/best/adapter"), 2);  // evaluated at the end alone
}

TEST_F(RunAdapters, WhatIsNoCheckpointOfTheRunIsRefusedWithThoseThatAre) {
  fs::copy(run() + "/checkpoint-000001", dir / "checkpoint-000001", fs::copy_options::recursive);
  for (const std::string& name :
       {std::string("checkpoint-000003"), std::string("adapter"), std::string(".."), dir / "model",
        dir / "checkpoint-000001", std::string(5000, 'n')}) {
    EXPECT_THAT([&] { named(name); },
                ThrowsMessage<ConfigError>(
                    HasSubstr(" holds no checkpoint " + name +
                              "; it holds: best, checkpoint-000001, checkpoint-000002")));
  }
}

TEST_F(RunAdapters, ANamedCheckpointThatIsNotWholeIsRefused) {
  fs::remove(run() + "/checkpoint-000001/state.json");
  EXPECT_THAT([&] { named("checkpoint-000001"); },
              ThrowsMessage<FormatError>(HasSubstr("state.json is missing")));
}

TEST_F(RunAdapters, AModelThatIsNoRunHasNoCheckpoints) {
  ModelChoice choice;
  choice.model = dir / "model";
  choice.checkpoint = "best";
  EXPECT_THAT([&] { open_model(choice); },
              ThrowsMessage<ConfigError>(HasSubstr("--adapter RUN/best/adapter")));
}

}  // namespace
}  // namespace qlora::recipes
