#include "trainer/checkpoint.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "io/json.h"
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

TEST(Checkpoint, TheLatestIsTheOneWithTheMostStepsAndNeverAPartialOne) {
  TempDir dir;
  EXPECT_EQ(latest_checkpoint(dir.path()), std::nullopt);
  for (const char* name : {"checkpoint-000002", "checkpoint-000010",
                           "checkpoint-000012.partial-999999999", "checkpoint-x"})
    fs::create_directory(dir / name);
  EXPECT_EQ(latest_checkpoint(dir.path()), dir / "checkpoint-000010");
  EXPECT_FALSE(fs::exists(dir / "checkpoint-000012.partial-999999999"));
}

TEST(Checkpoint, RotationKeepsTheNewestAndTheBest) {
  TempDir dir;
  for (int step = 1; step <= 6; ++step) fs::create_directory(dir / checkpoint_name(step));
  point_best_at(dir.path(), 2);
  rotate_checkpoints(dir.path(), 2, 2);
  EXPECT_THAT(names_in(dir.path()),
              ::testing::UnorderedElementsAre("best", "checkpoint-000002", "checkpoint-000005",
                                              "checkpoint-000006"));
  point_best_at(dir.path(), 6);
  EXPECT_EQ(fs::read_symlink(dir / "best"), "checkpoint-000006");
}

TEST(Checkpoint, StateReadsBackAsItWasWritten) {
  TrainState state;
  state.step = 7;
  state.horizon = 9;
  state.position = {1, 2};
  state.tokens = 1234567890123;
  state.best_step = -1;
  state.base_hash = "ab";
  state.choices = {3, "avx2", "cpu", "float32", true, true, "float16"};
  const auto json = nlohmann::json::parse(to_json(state));
  const TrainState back = train_state_from_json(io::JsonNode(json, "state.json"));
  EXPECT_EQ(to_json(back), to_json(state));
  EXPECT_EQ(back.choices, state.choices);
  nlohmann::json older = json;
  older["choices"].erase("model_dtype");
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
    TensorboardLog log(dir.path());
    log.write(5, {{"a", 1.0}});
  }
  const std::string bytes = test::read_file(dir / names_in(dir.path()).at(0));
  // The version record: wall time (9 bytes), then field 3 with 13 characters.
  EXPECT_EQ(static_cast<uint8_t>(bytes[0]), 9 + 2 + 13);
  EXPECT_EQ(bytes.substr(12 + 9 + 2, 13), "brain.Event:2");
  const size_t second = 12 + 24 + 4;
  uint64_t length = 0;
  std::memcpy(&length, bytes.data() + second, sizeof(length));
  EXPECT_EQ(bytes.size(), second + 12 + length + 4);
}

}  // namespace
}  // namespace qlora::trainer
