#include "trainer/checkpoint.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/json.h"
#include "tests/support/another_user.h"
#include "tests/support/event_file.h"
#include "tests/support/killed_work.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "trainer/tensorboard.h"
#include "trainer/train_state_json.h"

namespace qlora::trainer {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct SmallParts {
  std::unique_ptr<model::CausalLm> model = test::tiny_model();
  std::unique_ptr<lora::AdapterSet> adapters = test::tiny_adapters(*model, true);
  lora::LoraOptions lora_options;
  lora::AdapterBase base;
  std::unique_ptr<optim::Optimizer> optimizer;
  TrainState state;

  SmallParts() {
    lora_options.rank = 4;
    lora_options.alpha = 8;
    std::vector<optim::Parameter> parameters;
    for (const auto& t : adapters->tensors()) parameters.push_back({t.name, t.value, t.gradient});
    optimizer = optim::make_optimizer({}, parameters);
    at::Tensor gradients = adapters->gradients();
    gradients.fill_(0.01f);
    optimizer->step(1e-3, 1.0);
    state.step = 1;
    state.choices.threads = 2;
  }
  CheckpointParts parts() { return {*adapters, lora_options, base, *optimizer, state}; }
};

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename());
  return names;
}

TEST(Checkpoint, OneWhoseEvaluationWasStillDueIsReplacedAndNoOther) {
  TempDir dir;
  SmallParts small;
  small.state.evaluation_due = true;
  save_checkpoint(dir.path(), small.parts());
  const std::string checkpoint = dir / checkpoint_name(1);
  EXPECT_TRUE(read_train_state(checkpoint).evaluation_due);
  small.state.evaluation_due = false;
  small.state.best_eval_loss = 0.5;
  save_checkpoint(dir.path(), small.parts());
  small.state.best_eval_loss = 0.25;
  save_checkpoint(dir.path(), small.parts());
  EXPECT_FALSE(read_train_state(checkpoint).evaluation_due);
  EXPECT_EQ(read_train_state(checkpoint).best_eval_loss, 0.5);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{checkpoint_name(1)});
}

TEST(Checkpoint, GivesBackAdapterOptimizerAndState) {
  TempDir dir;
  SmallParts saved;
  saved.state.position = {3, 4};
  saved.state.best_eval_loss = 0.1;
  save_checkpoint(dir.path(), saved.parts());
  SmallParts loaded;
  at::Tensor values = loaded.adapters->values();
  values.zero_();
  load_checkpoint(dir / "checkpoint-000001", loaded.parts());
  EXPECT_TRUE(at::equal(loaded.adapters->values(), saved.adapters->values()));
  EXPECT_EQ(loaded.state.position, saved.state.position);
  EXPECT_EQ(loaded.state.best_eval_loss, 0.1);
  EXPECT_EQ(loaded.optimizer->num_steps(), 1);
  const auto a = loaded.optimizer->state(), b = saved.optimizer->state();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].second, b[i].second));
}

TEST(Checkpoint, EachDamagedFileIsNamed) {
  TempDir dir;
  SmallParts saved;
  save_checkpoint(dir.path(), saved.parts());
  const std::string directory = dir / "checkpoint-000001";
  for (const char* name : {"state.json", "optimizer.safetensors", "adapter/adapter_config.json",
                           "adapter/adapter_model.safetensors"}) {
    const std::string path = directory + "/" + name, whole = test::read_file(path);
    std::string changed = whole;
    changed[changed.size() / 2] ^= 1;
    for (const std::string& bytes : {whole.substr(0, whole.size() - 1), changed}) {
      dir.write("checkpoint-000001/" + std::string(name), bytes);
      EXPECT_THAT([&] { verify_checkpoint(directory); },
                  ThrowsMessage<FormatError>(HasSubstr(name)));
    }
    fs::remove(path);
    EXPECT_THAT([&] { verify_checkpoint(directory); }, ThrowsMessage<FormatError>(HasSubstr(name)));
    dir.write("checkpoint-000001/" + std::string(name), whole);
    EXPECT_NO_THROW(verify_checkpoint(directory));
  }
  dir.write("checkpoint-000001/notes.txt", "x");
  EXPECT_THAT([&] { verify_checkpoint(directory); },
              ThrowsMessage<FormatError>(HasSubstr("notes.txt")));
}

// Checkpoints of steps 1 to `steps`.
void save_steps(const TempDir& dir, SmallParts& small, int64_t steps) {
  for (small.state.step = 1; small.state.step <= steps; ++small.state.step)
    save_checkpoint(dir.path(), small.parts());
}

TEST(Checkpoint, TheNewestIsTheWholeOneWithTheMostSteps) {
  TempDir dir;
  EXPECT_EQ(newest_checkpoint(dir.path(), Look::kHashes).whole, std::nullopt);
  SmallParts small;
  small.state.step = 2;
  save_checkpoint(dir.path(), small.parts());
  small.state.step = 10;
  save_checkpoint(dir.path(), small.parts());
  for (const char* name : {"checkpoint-000012.partial-999999999", "checkpoint-x"})
    fs::create_directory(dir / name);
  const NewestCheckpoint newest = newest_checkpoint(dir.path(), Look::kHashes);
  EXPECT_EQ(newest.whole, dir / "checkpoint-000010");
  EXPECT_TRUE(newest.passed_over.empty());
  EXPECT_TRUE(fs::exists(dir / "checkpoint-000012.partial-999999999"));  // it only reads
}

TEST(Checkpoint, ALinkToOneCountsAndOneThatLeadsNowhereIsNamed) {
  TempDir dir;
  SmallParts small;
  save_steps(dir, small, 3);
  fs::create_directory(dir / "elsewhere");
  fs::rename(dir / "checkpoint-000003", dir / "elsewhere/it");
  fs::create_directory_symlink(dir / "elsewhere/it", dir / "checkpoint-000003");
  EXPECT_EQ(newest_checkpoint(dir.path(), Look::kHashes).whole, dir / "checkpoint-000003");
  SmallParts loaded;
  load_checkpoint(dir / "checkpoint-000003", loaded.parts());
  EXPECT_EQ(loaded.state.step, 3);
  fs::rename(dir / "elsewhere", dir / "gone");
  const NewestCheckpoint newest = newest_checkpoint(dir.path(), Look::kHashes);
  EXPECT_EQ(newest.whole, dir / "checkpoint-000002");
  ASSERT_EQ(newest.passed_over.size(), 1u);
  EXPECT_EQ(newest.passed_over[0].directory, dir / "checkpoint-000003");
}

TEST(Checkpoint, WithoutAnAdapterItIsNotWhole) {
  TempDir dir;
  SmallParts small;
  save_checkpoint(dir.path(), small.parts());
  const std::string path = dir / "checkpoint-000001/MANIFEST.json";
  fs::remove_all(dir / "checkpoint-000001/adapter");
  auto manifest = nlohmann::json::parse(test::read_file(path));
  auto& files = manifest["files"];
  for (const char* name : {"state.json", "optimizer.safetensors"})
    ASSERT_TRUE(files.contains(name));
  files = {{"state.json", files["state.json"]},
           {"optimizer.safetensors", files["optimizer.safetensors"]}};
  dir.write("checkpoint-000001/MANIFEST.json", manifest.dump());
  EXPECT_THAT([&] { verify_checkpoint(dir / "checkpoint-000001"); },
              ThrowsMessage<FormatError>(HasSubstr("does not list adapter/adapter_config.json")));
}

TEST(Checkpoint, WhatIsNotWholeIsPassedOverAndNamed) {
  TempDir dir;
  SmallParts small;
  save_steps(dir, small, 4);
  fs::remove(dir / "checkpoint-000003/MANIFEST.json");
  fs::resize_file(dir / "checkpoint-000004/optimizer.safetensors", 100);
  fs::create_directory(dir / "checkpoint-000008");
  const NewestCheckpoint newest = newest_checkpoint(dir.path(), Look::kSizes);
  EXPECT_EQ(newest.whole, dir / "checkpoint-000002");
  ASSERT_EQ(newest.passed_over.size(), 3u);
  EXPECT_EQ(newest.passed_over[0].directory, dir / "checkpoint-000008");
  EXPECT_THAT(newest.passed_over[0].fault, HasSubstr("MANIFEST.json is missing"));
  EXPECT_THAT(newest.passed_over[1].fault, HasSubstr("optimizer.safetensors must have"));
  EXPECT_THAT(newest.passed_over[2].fault, HasSubstr("checkpoint-000003: MANIFEST.json"));
}

TEST(Checkpoint, AChangedByteIsSeenByHashesAndAForeignFilePassesNothingOver) {
  TempDir dir;
  SmallParts small;
  save_steps(dir, small, 2);
  dir.write("checkpoint-000002/notes.txt", "mine");
  EXPECT_EQ(newest_checkpoint(dir.path(), Look::kHashes).whole, dir / "checkpoint-000002");
  const std::string file = "checkpoint-000002/optimizer.safetensors";
  std::string bytes = test::read_file(dir / file);
  bytes.back() ^= 1;
  dir.write(file, bytes);
  EXPECT_EQ(newest_checkpoint(dir.path(), Look::kSizes).whole, dir / "checkpoint-000002");
  EXPECT_EQ(newest_checkpoint(dir.path(), Look::kHashes).whole, dir / "checkpoint-000001");
}

TEST(Checkpoint, SavingReplacesOneThatIsNotWhole) {
  TempDir dir;
  SmallParts small;
  save_checkpoint(dir.path(), small.parts());
  fs::remove(dir / "checkpoint-000001/MANIFEST.json");
  save_checkpoint(dir.path(), small.parts());
  EXPECT_NO_THROW(verify_checkpoint(dir / "checkpoint-000001"));
  fs::remove_all(dir / "checkpoint-000001");
  fs::create_directory(dir / "checkpoint-000001");
  save_checkpoint(dir.path(), small.parts());
  EXPECT_NO_THROW(verify_checkpoint(dir / "checkpoint-000001"));
}

TEST(Checkpoint, OneThatDoesNotFitLeavesAllPartsAsTheyWere) {
  TempDir dir;
  SmallParts saved;
  save_checkpoint(dir.path(), saved.parts());
  SmallParts other;
  optim::OptimizerOptions options;
  options.name = "lion";  // has one state where the saved AdamW has two
  std::vector<optim::Parameter> parameters;
  for (const auto& t : other.adapters->tensors())
    parameters.push_back({t.name, t.value, t.gradient});
  other.optimizer = optim::make_optimizer(options, parameters);
  at::Tensor values = other.adapters->values();
  values.fill_(0.25f);
  other.state.step = 77;
  EXPECT_THROW(load_checkpoint(dir / "checkpoint-000001", other.parts()), FormatError);
  EXPECT_TRUE(at::equal(other.adapters->values(), at::full_like(values, 0.25f)));
  EXPECT_EQ(other.optimizer->num_steps(), 0);
  EXPECT_EQ(other.state.step, 77);
}

// Each of these is killed at every system call that changes a file.

TEST(AKillAtAnyCall, OfASaveLeavesTheCheckpointBeforeOrTheNewOne) {
  TempDir dir;
  SmallParts small;
  save_checkpoint(dir.path(), small.parts());
  small.state.step = 2;
  const auto kills = test::kill_at_each_call(
      [&] { fs::remove_all(dir / "checkpoint-000002"); },
      [&] { save_checkpoint(dir.path(), small.parts()); },
      [&] {
        const auto newest = newest_checkpoint(dir.path(), Look::kHashes);
        EXPECT_TRUE(newest.whole.has_value());
        EXPECT_TRUE(newest.passed_over.empty()) << newest.passed_over[0].fault;
      });
  EXPECT_GE(kills, 20);
}

TEST(AKillAtAnyCall, OfASaveThatReplacesLeavesTheOldOneOrTheNewOne) {
  SmallParts small;
  TempDir old;
  small.state.evaluation_due = true;
  save_checkpoint(old.path(), small.parts());
  small.state.evaluation_due = false;
  for (const bool exchanges : {true, false}) {
    TempDir dir;
    refuse_exchange(!exchanges);
    test::kill_at_each_call(
        [&] {
          fs::remove_all(dir / "checkpoint-000001");
          fs::copy(old.path(), dir.path(), fs::copy_options::recursive);
        },
        [&] { save_checkpoint(dir.path(), small.parts()); },
        [&] {
          io::recover_replaced(dir.path(), [](const std::string&) { return true; });
          EXPECT_NO_THROW(verify_checkpoint(dir / "checkpoint-000001"));
        });
    refuse_exchange(0);
  }
}

TEST(AKillAtAnyCall, OfARotationLeavesTheNewestAndTheBest) {
  TempDir dir;
  SmallParts small;
  test::kill_at_each_call(
      [&] {
        save_steps(dir, small, 4);
        EXPECT_TRUE(point_best_at(dir.path(), 2));
      },
      [&] {
        EXPECT_TRUE(point_best_at(dir.path(), 3));
        rotate_checkpoints(dir.path(), 1, 3);
      },
      [&] {
        const auto newest = newest_checkpoint(dir.path(), Look::kHashes);
        EXPECT_EQ(newest.whole, dir / "checkpoint-000004");
        EXPECT_NO_THROW(verify_checkpoint(dir / "best"));
        for (const int64_t step : checkpoint_steps(dir.path()))
          EXPECT_NO_THROW(verify_checkpoint(dir / checkpoint_name(step)));
      });
}

TEST(Checkpoint, RotationKeepsTheNewestAndTheBest) {
  TempDir dir;
  for (int step = 1; step <= 6; ++step) fs::create_directory(dir / checkpoint_name(step));
  EXPECT_TRUE(point_best_at(dir.path(), 2));
  rotate_checkpoints(dir.path(), 2, 2);
  EXPECT_THAT(names_in(dir.path()),
              ::testing::UnorderedElementsAre("best", "checkpoint-000002", "checkpoint-000005",
                                              "checkpoint-000006"));
  EXPECT_TRUE(point_best_at(dir.path(), 6));
  EXPECT_EQ(fs::read_symlink(dir / "best"), "checkpoint-000006");
}

TEST(Checkpoint, TheBestIsKeptBesideTheNewestOnlyWhereItIsNoneOfThem) {
  struct Rotation {
    int64_t limit, best_step;
    std::vector<int64_t> kept;
  };
  for (const auto& [limit, best_step, kept] : {Rotation{3, 40, {30, 35, 40}},
                                               {3, 30, {30, 35, 40}},
                                               {3, 20, {20, 30, 35, 40}},
                                               {3, -1, {30, 35, 40}},
                                               {1, 40, {40}},
                                               {1, 5, {5, 40}},
                                               {9, 40, {5, 10, 15, 20, 25, 30, 35, 40}},
                                               {0, 40, {5, 10, 15, 20, 25, 30, 35, 40}}}) {
    TempDir dir;
    for (int step = 5; step <= 40; step += 5) fs::create_directory(dir / checkpoint_name(step));
    rotate_checkpoints(dir.path(), limit, best_step);
    EXPECT_EQ(checkpoint_steps(dir.path()), kept) << limit << ", " << best_step;
  }
}

TEST(Checkpoint, OneThatCannotBeRemovedStaysUnderAnotherNameAndTheRotationGoesOn) {
  TempDir dir;
  for (int step = 1; step <= 3; ++step) dir.write(checkpoint_name(step) + "/state.json", "{}");
  test::open_to_all(dir.path());
  test::close_to_all(dir / "checkpoint-000001");
  test::open_to_all(dir / "checkpoint-000002");
  {
    const test::AnotherUser user;
    if (!user.can_work_in(dir.path())) GTEST_SKIP() << dir.path() << " is closed to other users";
    EXPECT_NO_THROW(rotate_checkpoints(dir.path(), 1, -1));
  }
  EXPECT_EQ(checkpoint_steps(dir.path()), std::vector<int64_t>{3});
  EXPECT_THAT(names_in(dir.path()),
              ::testing::UnorderedElementsAre("checkpoint-000003",
                                              ::testing::StartsWith("checkpoint-000001.partial-")));
  for (const std::string& name : names_in(dir.path())) test::open_to_all(dir / name);
}

TEST(Checkpoint, AStateInWhichNoChoicesWereRecordedReadsBack) {
  const TrainState state;
  const auto json = nlohmann::json::parse(to_json(state));
  const TrainState back = train_state_from_json(io::JsonNode(json, "state.json"));
  EXPECT_EQ(to_json(back), to_json(state));
  EXPECT_EQ(back.choices, state.choices);
}

TEST(Checkpoint, StateReadsBackAsItWasWritten) {
  TrainState state;
  state.step = 7;
  state.horizon = 9;
  state.position = {1, 2};
  state.tokens = 1234567890123;
  state.best_step = -1;
  state.base_hash = "ab";
  state.losses = {5.857142857142857, 2};
  state.choices = {3, "avx2", "cpu", "float32", true, true, "float16"};
  const auto json = nlohmann::json::parse(to_json(state));
  const TrainState back = train_state_from_json(io::JsonNode(json, "state.json"));
  EXPECT_EQ(to_json(back), to_json(state));
  EXPECT_EQ(back.choices, state.choices);
  EXPECT_EQ(back.losses, state.losses);
  nlohmann::json older = json;
  older["choices"].erase("model_dtype");
  for (const char* key : {"first_loss", "losses_above"}) older.erase(key);
  EXPECT_EQ(train_state_from_json(io::JsonNode(older, "state.json")).losses, SeenLosses());
  EXPECT_EQ(train_state_from_json(io::JsonNode(older, "state.json")).choices.model_dtype, "");
  EXPECT_EQ(json["choices"]["recompute_layers"], true);  // as it was before it could be a number
  for (const auto& layers : {model::RecomputedLayers(), model::RecomputedLayers::first(5)}) {
    state.choices.recompute_layers = layers;
    const auto other = nlohmann::json::parse(to_json(state));
    EXPECT_EQ(train_state_from_json(io::JsonNode(other, "state.json")).choices, state.choices);
  }
  auto without = json;
  without.erase("tokens");
  EXPECT_THAT([&] { train_state_from_json(io::JsonNode(without, "state.json")); },
              ThrowsMessage<FormatError>(HasSubstr("tokens")));
}

TEST(Tensorboard, RecordsAreFramedByLengthAndChecksum) {
  TempDir dir;
  {
    TensorboardLog log(dir.path(), 4);
    log.write(5, {{"a", 1.0}});
  }
  const auto events = test::events_of(dir / names_in(dir.path()).at(0));
  ASSERT_EQ(events.size(), 3u);
  // Wall time takes 9 bytes; field 3 with 13 characters follows.
  EXPECT_EQ(events[0].size(), 9u + 2 + 13);
  EXPECT_EQ(events[0].substr(9 + 2, 13), "brain.Event:2");
  // A session begins at step 5 (field 2), by field 7 with status (field 1) START.
  EXPECT_EQ(events[1].substr(9), std::string("\x10\x05\x3a\x02\x08\x01"));
  EXPECT_EQ(events[2].substr(9, 2), std::string("\x10\x05"));
}

TEST(Tensorboard, ASecondStartWithinASecondWritesAFileOfItsOwnThatComesAfterTheFirst) {
  TempDir dir;
  TensorboardLog(dir.path(), 0).write(1, {{"a", 1.0}});
  const std::string first = names_in(dir.path()).at(0);
  const std::string bytes = test::read_file(dir / first);
  const TensorboardLog second(dir.path(), 1);
  auto names = names_in(dir.path());
  std::ranges::sort(names);
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[0], first);
  EXPECT_EQ(test::read_file(dir / first), bytes);
}

TEST(Tensorboard, AStartAfterTheClockWasSetBackWritesAFileThatComesAfterTheOthers) {
  TempDir dir;
  dir.write("events.out.tfevents.9000000000.99.0.qlora", "");
  dir.write("events.out.tfevents.not-a-number", "");
  const TensorboardLog second(dir.path(), 1);
  auto names = names_in(dir.path());
  std::ranges::sort(names);
  ASSERT_EQ(names.size(), 3u);
  EXPECT_TRUE(names[1].starts_with("events.out.tfevents.9000000001.")) << names[1];
}

}  // namespace
}  // namespace qlora::trainer
