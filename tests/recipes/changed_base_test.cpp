// Runs whose initialisation changes the base, or that save it.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/gguf.h"
#include "io/hashing.h"
#include "quant/tensor_file.h"
#include "recipes/exports/export_model.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

class ChangedBase : public ::testing::Test {
 protected:
  ChangedBase() : recipe_(test::tiny_recipe(dir_.path())) { recipe_.lora.init = "loftq"; }

  static void train(const Recipe& recipe) {
    const std::atomic<bool> stop = false;
    finetune(recipe, stop);
  }
  static quant::NamedTensors adapter(const std::string& run) {
    return quant::read_tensors(run + "/adapter/adapter_model.safetensors");
  }

  const test::TempDir dir_;
  Recipe recipe_;
};

TEST_F(ChangedBase, ItIsWrittenOnceAndEveryCommandFindsIt) {
  train(recipe_);
  ModelChoice choice;
  choice.run_dir = recipe_.output.dir;
  const TrainedModel trained = open_model(choice);
  const auto record = lora::read_adapter_base(recipe_.output.dir + "/adapter");
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(trained.base.record.hash, record->hash);
  EXPECT_EQ(fs::path(record->name), fs::path(recipe_.output.dir) / "base");
  EXPECT_TRUE(fs::exists(recipe_.output.dir + "/base/initialisation.json"));
  ModelChoice by_hand;
  by_hand.model = recipe_.output.dir + "/base";
  by_hand.adapter = recipe_.output.dir + "/adapter";
  EXPECT_EQ(open_model(by_hand).base.record.hash, record->hash);
}

TEST_F(ChangedBase, LoftqIsRefusedWhereNoTargetIsQuantized) {
  const quant::QuantizationOptions nf4 = recipe_.quantization;
  const auto expect_refused = [this](const char* what) {
    EXPECT_THAT([&] { train(recipe_); },
                ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr(
                    "lora.init: loftq begins with what quantizing the weights has lost")))
        << what;
    EXPECT_FALSE(fs::exists(recipe_.output.dir + "/recipe.resolved.yaml")) << what;
  };
  recipe_.quantization = {};
  expect_refused("as_stored");
  recipe_.quantization.method = "none";
  expect_refused("none");
  recipe_.quantization = nf4;
  recipe_.lora.targets = {"down_proj"};
  recipe_.quantization.skip_modules = {"down_proj"};
  expect_refused("all of them skipped");
}

// model.groups() does not have it, and without a word it would start as if lora.init were left out.
TEST_F(ChangedBase, AHeadAloneIsRefusedAndBesideOtherTargetsStartsAsByDefault) {
  recipe_.quantization = {};
  recipe_.lora.init = "pissa";
  recipe_.lora.targets = {"lm_head"};
  EXPECT_THAT([&] { train(recipe_); },
              ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr(
                  "lora.init: pissa is for the layers of blocks, and lora.targets has lm_head "
                  "alone")));
  recipe_.lora.targets = {"lm_head", "q_proj"};
  testing::internal::CaptureStderr();
  train(recipe_);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr(
                  "lora.init pissa: the adapter of lm_head starts as with lora.init default"));
}

// With A and B zero neither would ever get a gradient.
TEST_F(ChangedBase, ATargetThatIsNotQuantizedStartsAsByDefault) {
  recipe_.quantization.skip_modules = {"lm_head", "down_proj"};
  train(recipe_);
  for (const char* module : {"layers.0.mlp.down_proj", "layers.0.mlp.up_proj"})
    for (const char* factor : {".lora_A.weight", ".lora_B.weight"}) {
      bool found = false;
      for (const auto& [name, tensor] : adapter(recipe_.output.dir))
        if (name == std::string("base_model.model.model.") + module + factor) {
          found = true;
          EXPECT_GT(tensor.abs().max().item<float>(), 0) << name;
        }
      EXPECT_TRUE(found) << module << factor;
    }
}

TEST_F(ChangedBase, TheModelThatItWasMadeFromIsKnownToEachAdapterAndExport) {
  recipe_.model.name = "acme/tiny-stories";
  const std::string run = recipe_.output.dir;
  const auto expect_known = [](const lora::AdapterBase& record, const char* where) {
    EXPECT_EQ(record.made_from, "acme/tiny-stories") << where;
    EXPECT_EQ(fs::path(record.name).filename(), "base") << where;
    EXPECT_EQ(record.init, "loftq") << where;
  };
  train(recipe_);
  expect_known(lora::read_adapter_base(run + "/adapter").value(), "the run");
  recipe_.train.max_steps = 8;  // reads its own base
  recipe_.train.on_extend = "rescale";
  train(recipe_);
  expect_known(lora::read_adapter_base(run + "/adapter").value(), "the run that went on");
  ModelChoice of_run, by_hand;
  of_run.run_dir = run;
  by_hand.model = run + "/base";
  by_hand.adapter = run + "/adapter";
  for (const ModelChoice& choice : {of_run, by_hand}) {
    TrainedModel trained = open_model(choice);
    expect_known(trained.base.record, "what is exported");
    fs::remove_all(dir_ / "out");
    export_model(trained, {.format = "adapter", .output = dir_ / "out"});
    EXPECT_THAT(test::read_file(dir_ / "out/README.md"),
                ::testing::HasSubstr("base_model: acme/tiny-stories\n"));
    fs::remove_all(dir_ / "out");
    export_model(trained, {.format = "gguf", .output = dir_ / "out"});
    EXPECT_EQ(io::GgufFile(dir_ / "out/model.gguf").text("general.name"), "tiny-stories");
    fs::remove_all(dir_ / "out");
    export_model(trained, {.format = "gguf-lora", .output = dir_ / "out"});
    EXPECT_THAT(test::read_file(dir_ / "out/README.md"),
                ::testing::HasSubstr("On acme/tiny-stories itself the adapter is wrong."));
    EXPECT_THAT(test::read_file(dir_ / "out/Modelfile"),
                ::testing::StartsWith("# the base that the adapter was trained on, as a GGUF file: "
                                      "on another it is wrong\nFROM ./base.gguf\n"));
  }
}

TEST_F(ChangedBase, CardsSayThatItsRunQuantizedItAlsoOnceItWentOn) {
  using ::testing::AllOf, ::testing::HasSubstr, ::testing::Not;
  recipe_.train.on_extend = "rescale";
  const auto sentence = AllOf(HasSubstr(" The base was quantized for the training: nf4, block size "
                                        "32"),
                              Not(HasSubstr("quantized already")));
  for (const char* init : {"loftq", "default"}) {
    Recipe recipe = recipe_;
    recipe.lora.init = init;
    recipe.output = {.dir = dir_ / init, .save_base = init == std::string("default")};
    for (const int64_t steps : {6, 8}) {
      recipe.train.max_steps = steps;
      train(recipe);
      EXPECT_THAT(test::read_file(recipe.output.dir + "/adapter/README.md"), sentence) << init;
      ModelChoice of_run, by_hand;
      of_run.run_dir = recipe.output.dir;
      by_hand.model = recipe.output.dir + "/base";
      by_hand.adapter = recipe.output.dir + "/adapter";
      for (const ModelChoice& choice : {of_run, by_hand})
        for (const char* format : {"adapter", "merged"}) {
          TrainedModel trained = open_model(choice);
          fs::remove_all(dir_ / "out");
          export_model(trained, {.format = format, .output = dir_ / "out"});
          EXPECT_THAT(test::read_file(dir_ / "out/README.md"), sentence) << init << format;
        }
    }
  }
}

TEST_F(ChangedBase, ButNotToOneOfTheModelItself) {
  recipe_.lora.init = "default";
  recipe_.output.save_base = true;
  recipe_.train.on_extend = "rescale";
  Recipe longer = recipe_;  // reads its own base
  longer.train.max_steps = 8;
  train(recipe_);
  train(longer);
  const std::string adapter = longer.output.dir + "/adapter", model = recipe_.model.path;
  ASSERT_EQ(lora::read_adapter_base(adapter)->made_from, model);
  Recipe of_model = recipe_, of_base = recipe_;
  of_model.output = {.dir = dir_ / "of-model"};
  of_model.model.name = "acme/tiny-stories";
  of_base.output = {.dir = dir_ / "of-base"};
  of_base.model.path = recipe_.output.dir + "/base";
  of_base.quantization = {};
  for (Recipe* other : {&of_model, &of_base}) {
    other->lora.from_adapter = adapter;
    train(*other);
  }
  EXPECT_EQ(lora::read_adapter_base(of_model.output.dir + "/adapter")->made_from, "");
  EXPECT_THAT(test::read_file(of_model.output.dir + "/adapter/README.md"),
              ::testing::Not(::testing::HasSubstr("Its run wrote")));
  EXPECT_EQ(lora::read_adapter_base(of_base.output.dir + "/adapter")->made_from, model);
  // The run without its base has the model itself again.
  fs::remove_all(longer.output.dir + "/base");
  longer.train.max_steps = 10;
  train(longer);
  EXPECT_EQ(lora::read_adapter_base(adapter)->made_from, "");
}

// The adapter's record as runs that went on wrote it before they took over how it came to be.
void make_record_older(const std::string& adapter) {
  lora::AdapterBase record = lora::read_adapter_base(adapter).value();
  record.init = "default";
  record.made_from.clear();
  lora::write_adapter_base(adapter, record);
}

// The same in a checkpoint, which has hashes of its files.
void make_checkpoint_older(const std::string& checkpoint) {
  make_record_older(checkpoint + "/adapter");
  const std::string name = "adapter/qlora_base.json", file = checkpoint + "/" + name;
  auto manifest = nlohmann::ordered_json::parse(test::read_file(checkpoint + "/MANIFEST.json"));
  manifest["files"][name] = {{"bytes", fs::file_size(file)}, {"xxh3_128", io::hash_file(file)}};
  io::write_file_atomically(checkpoint + "/MANIFEST.json", manifest.dump());
}

TEST_F(ChangedBase, CardsWarnAlsoWhereAnOlderVersionRecordedThatNothingChangedIt) {
  recipe_.lora.init = "olora";
  train(recipe_);
  const std::string run = recipe_.output.dir;
  make_checkpoint_older(run + "/checkpoint-000006");
  recipe_.train.max_steps = 8;
  recipe_.train.on_extend = "rescale";
  train(recipe_);
  EXPECT_EQ(lora::read_adapter_base(run + "/adapter")->init, "olora");
  EXPECT_THAT(test::read_file(run + "/adapter/README.md"),
              ::testing::HasSubstr("from a part of the weights of model (olora) and acts"));
  make_record_older(run + "/adapter");
  ModelChoice of_run, by_hand, elsewhere;
  of_run.run_dir = run;
  by_hand.model = run + "/base/";
  by_hand.adapter = run + "/adapter";
  elsewhere.model = dir_ / "given-on/base";
  elsewhere.adapter = dir_ / "given-on/adapter";
  fs::create_directory(dir_ / "given-on");
  fs::copy(run + "/base", elsewhere.model);
  fs::copy(run + "/adapter", elsewhere.adapter);
  for (const auto& [choice, init] :
       {std::pair{of_run, " (olora)"}, {by_hand, " (olora)"}, {elsewhere, ""}}) {
    TrainedModel trained = open_model(choice);
    fs::remove_all(dir_ / "out");
    export_model(trained, {.format = "adapter", .output = dir_ / "out"});
    EXPECT_THAT(test::read_file(dir_ / "out/README.md"),
                ::testing::ContainsRegex(std::string("from a part of the .*") +
                                         (*init ? " [(]olora[)]" : "weights") + " and acts"));
  }
}

TEST_F(ChangedBase, AnAdapterBegunOnItByAnotherRunHoldsNoPartOfIt) {
  train(recipe_);
  Recipe other = test::tiny_recipe(dir_.path());
  other.model.path = recipe_.output.dir + "/base";
  other.quantization = {};
  other.output.dir = dir_ / "other";
  other.train.on_extend = "rescale";
  for (const int64_t steps : {6, 8}) {
    other.train.max_steps = steps;
    train(other);
    EXPECT_EQ(lora::read_adapter_base(other.output.dir + "/adapter")->init, "default");
    EXPECT_THAT(test::read_file(other.output.dir + "/adapter/README.md"),
                ::testing::Not(::testing::HasSubstr("from a part of")));
  }
}

// Also where the files do not say which products are made of them, and where they have a number of
// their own.
TEST_F(ChangedBase, AStoppedRunGoesOnToTheSameBits) {
  recipe_.optim.schedule = "constant";
  recipe_.optim.warmup_ratio = 0;
  recipe_.optim.warmup_steps = 0;
  const auto expect_same_bits = [this](const std::string& name) {
    Recipe whole = recipe_, parts = recipe_;
    whole.output.dir = dir_ / (name + "-whole");
    train(whole);
    parts.output.dir = dir_ / (name + "-parts");
    parts.train.max_steps = 3;
    train(parts);
    parts.train.max_steps = whole.train.max_steps;
    parts.train.on_extend = "rescale";
    train(parts);
    const auto one = adapter(whole.output.dir), two = adapter(parts.output.dir);
    ASSERT_EQ(one.size(), two.size());
    for (size_t i = 0; i < one.size(); ++i)
      EXPECT_TRUE(at::equal(one[i].second, two[i].second)) << name << " " << one[i].first;
  };
  expect_same_bits("nf4");
  recipe_.lora.init = "pissa";
  recipe_.quantization = {.method = "int8_weight_only"};
  expect_same_bits("weight-only");
  recipe_.quantization = {.method = "int8", .threshold = 0.5};
  expect_same_bits("int8");
  recipe_.lora.init = "default";
  recipe_.output.save_base = true;
  recipe_.quantization = {.method = "int8_weight_only"};
  expect_same_bits("saved");
}

TEST_F(ChangedBase, ThePlainBaseIsNotTheChangedOne) {
  train(recipe_);
  ModelChoice choice;
  choice.model = recipe_.model.path;
  choice.adapter = recipe_.output.dir + "/adapter";
  EXPECT_THROW(open_model(choice), ConfigError);
}

void expect_original_is_refused(const ModelChoice& choice, const std::string& output,
                                const std::string& original) {
  TrainedModel trained = open_model(choice);
  ExportOptions options{"merged", output, "bfloat16"};
  options.merge_base = "original";
  options.original = original;
  try {
    export_model(trained, options);
    ADD_FAILURE() << "merged into " << original;
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("--merge-base dequantized"));
  }
}

TEST_F(ChangedBase, TheOriginalWeightsAreNotWhatItsAdapterIsMergedInto) {
  train(recipe_);
  Recipe longer = recipe_;  // a resumed run reads its own base
  longer.train.max_steps = 8;
  longer.train.on_extend = "rescale";
  train(longer);
  ModelChoice choice;
  choice.run_dir = recipe_.output.dir;
  expect_original_is_refused(choice, dir_ / "out", recipe_.model.path);
  TrainedModel trained = open_model(choice);
  export_model(trained, {"merged", dir_ / "merged", "bfloat16"});
}

TEST_F(ChangedBase, NorIsALoftqAdapterOfABaseStoredQuantized) {
  QuantizeOptions options;
  options.model = recipe_.model.path;
  options.output = dir_ / "quantized";
  options.quantization.method = "nf4";
  quantize_model(options);
  recipe_.lora.loftq.original = recipe_.model.path;
  recipe_.model.path = options.output;
  recipe_.quantization = {};
  train(recipe_);
  ModelChoice choice;
  choice.model = recipe_.model.path;
  choice.adapter = recipe_.output.dir + "/adapter";
  expect_original_is_refused(choice, dir_ / "out", recipe_.lora.loftq.original);
}

TEST_F(ChangedBase, SaveBaseWritesTheQuantizedBaseUnchanged) {
  recipe_.lora.init = "default";
  recipe_.output.save_base = true;
  train(recipe_);
  ModelChoice saved;
  saved.model = recipe_.output.dir + "/base";
  const auto record = lora::read_adapter_base(recipe_.output.dir + "/adapter");
  EXPECT_EQ(open_model(saved).base.record.hash, record->hash);
}

TEST_F(ChangedBase, ABaseThatIsThereAlreadyIsKeptAndAnotherOneIsSetAside) {
  recipe_.lora.init = "default";
  recipe_.output.save_base = true;
  train(recipe_);
  const std::string run = recipe_.output.dir, weights = "/model.safetensors";
  const std::string before = test::read_file(run + "/base" + weights);
  const auto leave_the_base_alone = [&run] {
    std::vector<fs::path> others;
    for (const fs::directory_entry& entry : fs::directory_iterator(run))
      if (const std::string name = entry.path().filename();
          name != "base" && name != "recipe.resolved.yaml")
        others.push_back(entry.path());
    for (const fs::path& other : others) fs::remove_all(other);
  };
  leave_the_base_alone();
  train(recipe_);
  EXPECT_FALSE(fs::exists(run + "/set-aside-1"));
  leave_the_base_alone();
  quant::NamedTensors tensors = quant::read_tensors(recipe_.model.path + weights);
  for (auto& [name, tensor] : tensors) tensor = tensor * 2;
  quant::write_tensors(recipe_.model.path + weights, tensors);
  train(recipe_);
  EXPECT_TRUE(test::read_file(run + "/set-aside-1/base" + weights) == before);
  EXPECT_TRUE(test::read_file(run + "/base" + weights) != before);
}

TEST_F(ChangedBase, AStoredQuantizationNeedsTheOriginal) {
  QuantizeOptions options;
  options.model = recipe_.model.path;
  options.output = dir_ / "quantized";
  options.quantization.method = "nf4";
  quantize_model(options);
  const std::string original = recipe_.model.path;
  recipe_.model.path = options.output;
  recipe_.quantization = {};
  EXPECT_THROW(train(recipe_), ConfigError);
  recipe_.lora.loftq.original = original;
  train(recipe_);
  EXPECT_FALSE(fs::exists(recipe_.output.dir + "/base"));
  recipe_.lora.init = "pissa";
  recipe_.output.dir = dir_ / "pissa";
  EXPECT_THROW(train(recipe_), ConfigError);
}

std::vector<at::Tensor> routers(const std::string& model) {
  std::vector<at::Tensor> all;
  for (const auto& [name, tensor] : quant::read_tensors(model + "/model.safetensors"))
    if (name.ends_with(".gate.weight")) all.push_back(tensor);
  return all;
}

TEST_F(ChangedBase, ARouterStaysAsItIs) {
  recipe_.model.path = dir_ / "mixtral";
  test::write_made_directory(recipe_.model.path, R"({"model_type": "mixtral", "vocab_size": 258,
      "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
      "num_key_value_heads": 2, "num_local_experts": 3, "num_experts_per_tok": 2,
      "max_position_embeddings": 256, "tie_word_embeddings": false})");
  recipe_.lora.dropout = 0;
  for (const char* init : {"loftq", "pissa"}) {
    recipe_.lora.init = init;
    recipe_.output.dir = dir_ / init;
    train(recipe_);
    bool has_router = false;
    for (const auto& [name, tensor] : adapter(recipe_.output.dir))
      has_router |=
          name.ends_with("mlp.gate.lora_B.weight") && tensor.abs().max().item<float>() > 0;
    EXPECT_TRUE(has_router) << init;
    const auto before = routers(recipe_.model.path), after = routers(recipe_.output.dir + "/base");
    ASSERT_EQ(before.size(), 2u);
    ASSERT_EQ(after.size(), 2u);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(at::equal(before[i], after[i])) << init;
  }
}

}  // namespace
}  // namespace qlora::recipes
