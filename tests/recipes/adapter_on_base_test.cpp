// Adapters as PEFT and others write them, on a base model. What is expected of targets, tensors and
// initialisations is what PEFT 0.21 does as it loads them.
#include "recipes/models/adapter_on_base.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/seed.h"
#include "lora/adapter_names.h"
#include "lora/weight_init.h"
#include "quant/tensor_file.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/options_from_files.h"
#include "recipes/plan/plan.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run/attached_adapters.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kVocabulary = 258, kHidden = 32, kRank = 4;

at::Tensor numbers(const std::string& key, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i)
    tensor.data_ptr<float>()[i] = 0.05f * normal(random_key(3, key), static_cast<uint64_t>(i));
  return tensor;
}

// The tiny model, and a directory as PEFT writes it, of q_proj.
class AdapterOnBase : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_directory(dir / "model");
    for (int layer = 0; layer < 2; ++layer) {
      const std::string module =
          fmt::format("base_model.model.model.layers.{}.self_attn.q_proj.", layer);
      tensors.emplace_back(module + "lora_A.weight", numbers(module + "a", {kRank, kHidden}));
      tensors.emplace_back(module + "lora_B.weight", numbers(module + "b", {kHidden, kRank}));
    }
  }

  void write() const {
    fs::remove_all(dir / "adapter");
    fs::create_directories(dir / "adapter");
    dir.write("adapter/adapter_config.json", config.dump());
    quant::write_tensors(dir / "adapter/adapter_model.safetensors", tensors);
  }

  // A run of two steps that begins with the adapter and goes on to a third: its recipe.
  Recipe trained_and_resumed() const {
    Recipe recipe = test::tiny_recipe(dir.path());
    recipe.lora.from_adapter = dir / "adapter";
    recipe.train.max_steps = 2;
    finetune(recipe, std::atomic<bool>(false));
    recipe.train.max_steps = 3;
    recipe.train.on_extend = "rescale";
    finetune(recipe, std::atomic<bool>(false));
    return recipe;
  }

  TrainedModel open() const {
    write();
    ModelChoice choice;
    choice.model = dir / "model";
    choice.adapter = dir / "adapter";
    choice.compute_dtype = "float32";
    return open_model(choice);
  }

  std::string complaint() const {
    try {
      open();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  at::Tensor stored(const std::string& name) const {
    for (const auto& [tensor, value] : quant::read_tensors(dir / "model/model.safetensors"))
      if (tensor == name) return value;
    return {};
  }

  static at::Tensor base_of(const TrainedModel& trained, int64_t layer) {
    const quant::FrozenWeight& base =
        *trained.base.model->layers[static_cast<size_t>(layer)].branches[0].in.layers()[0].base;
    at::Tensor values = at::empty({kHidden, kHidden}, at::kFloat);
    base.dequantize_rows(0, 0, kHidden, values);
    return values;
  }

  void add_embeddings(int64_t rows, float shift) {
    const at::Tensor own = stored("model.embed_tokens.weight").to(at::kFloat);
    at::Tensor more = at::zeros({rows, kHidden});
    more.narrow(0, 0, kVocabulary).copy_(own + shift);
    for (const char* module : {"model.embed_tokens", "lm_head"})
      tensors.emplace_back(fmt::format("base_model.model.{}.weight", module), more);
  }

  test::TempDir dir;
  quant::NamedTensors tensors;
  json config = {{"peft_type", "LORA"},
                 {"r", kRank},
                 {"lora_alpha", 8},
                 {"target_modules", {"q_proj"}},
                 {"init_lora_weights", true}};
};

TEST_F(AdapterOnBase, TargetsOfOtherModelsAreNamedAndLeftOut) {
  config["target_modules"] = {"q_proj", "qkv_proj", "Wqkv"};
  testing::internal::CaptureStderr();
  const TrainedModel trained = open();
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("qkv_proj, Wqkv"), HasSubstr("target_modules")));
  EXPECT_EQ(trained.adapters->num_modules(), 2);
}

TEST_F(AdapterOnBase, TargetsOfOtherModelsAloneAreRefused) {
  config["target_modules"] = {"c_attn"};
  EXPECT_THAT(complaint(),
              AllOf(HasSubstr("c_attn"), HasSubstr("another architecture"), HasSubstr("q_proj")));
}

TEST_F(AdapterOnBase, ParametersOfOtherModelsAreNamedAndLeftOut) {
  config["target_parameters"] = {"mlp.experts.gate_up_proj"};
  testing::internal::CaptureStderr();
  const TrainedModel trained = open();
  EXPECT_THAT(
      testing::internal::GetCapturedStderr(),
      AllOf(HasSubstr("adapter_config.json.target_parameters"), HasSubstr("experts.gate_up_proj")));
  EXPECT_EQ(trained.adapters->num_modules(), 2);
  EXPECT_TRUE(trained.recipe.lora.target_parameters.empty());
  config["target_modules"] = nullptr;
  EXPECT_THAT(complaint(), AllOf(HasSubstr("adapter_config.json.target_parameters"),
                                 HasSubstr("names no module of")));
}

TEST_F(AdapterOnBase, WholeModulesOfOtherModelsAreNamedAndPassedOverWithTheirTensors) {
  const at::Tensor own = stored("model.embed_tokens.weight").to(at::kFloat) + 0.5;
  config["modules_to_save"] = {"embed_tokens", "wte", "score"};
  tensors.emplace_back("base_model.model.model.embed_tokens.weight", own);
  tensors.emplace_back("base_model.model.score.weight", numbers("score", {2, kHidden}));
  testing::internal::CaptureStderr();
  const TrainedModel trained = open();
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("adapter_config.json.modules_to_save"),
                    HasSubstr("wte, score: passed over with 1 of the file's tensors")));
  EXPECT_THAT(trained.recipe.lora.modules_to_save, ElementsAre("embed_tokens"));
  EXPECT_TRUE(at::equal(trained.base.model->embedding.trained->value, own));
  config["modules_to_save"] = {"mlp"};  // PEFT trains all that it holds
  EXPECT_THAT(complaint(), AllOf(HasSubstr("adapter_config.json.modules_to_save: mlp is no module "
                                           "with weights of its own")));
}

TEST_F(AdapterOnBase, AnAdapterOfTheEmbeddingIsRefusedAsSuch) {
  config["target_modules"] = {"q_proj", "embed_tokens"};
  tensors.emplace_back("base_model.model.model.embed_tokens.lora_embedding_A",
                       numbers("a", {kRank, kVocabulary}));
  EXPECT_THAT(complaint(),
              AllOf(HasSubstr("lora_embedding_A"), HasSubstr("a LoRA adapter on an embedding")));
}

TEST_F(AdapterOnBase, TargetModulesThatNameNothingAreRefusedByTheFilesKey) {
  for (const json& none : {json(nullptr), json::array()}) {
    config["target_modules"] = none;
    EXPECT_THAT(complaint(), HasSubstr("adapter_config.json.target_modules must be the name of a "
                                       "module"));
  }
}

TEST_F(AdapterOnBase, FanInFanOutIsTakenAsFalse) {
  config["fan_in_fan_out"] = true;
  testing::internal::CaptureStderr();
  const TrainedModel trained = open();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("fan_in_fan_out"));
  EXPECT_EQ(trained.adapters->num_modules(), 2);
}

TEST_F(AdapterOnBase, EmbeddingsOfTheBaseItselfAreLeftOut) {
  add_embeddings(kVocabulary, 0);
  const TrainedModel trained = open();
  EXPECT_TRUE(trained.recipe.lora.modules_to_save.empty());
  EXPECT_EQ(trained.adapters->num_parameters(), 2 * kRank * 2 * kHidden);
}

TEST_F(AdapterOnBase, EmbeddingsOfItsOwnTakeThePlaceOfTheBases) {
  add_embeddings(kVocabulary, 0.5);
  testing::internal::CaptureStderr();
  const TrainedModel trained = open();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("modules_to_save does not name"));
  const at::Tensor wanted = stored("model.embed_tokens.weight").to(at::kFloat) + 0.5;
  EXPECT_TRUE(at::equal(trained.base.model->embedding.trained->value, wanted));
  EXPECT_TRUE(trained.adapters->embeddings().shared);
}

// The base's embedding and head are one parameter, into which PEFT loads what the file has of
// either.
TEST_F(AdapterOnBase, OneOfTiedEmbeddingsStandsForBoth) {
  const at::Tensor other = stored("model.embed_tokens.weight").to(at::kFloat) + 0.5;
  for (const char* module : {"model.embed_tokens", "lm_head"}) {
    tensors.emplace_back(fmt::format("base_model.model.{}.weight", module), other);
    const TrainedModel trained = open();
    EXPECT_TRUE(at::equal(trained.base.model->embedding.trained->value, other)) << module;
    EXPECT_TRUE(trained.adapters->embeddings().shared) << module;
    EXPECT_EQ(trained.adapters->num_parameters(), 2 * kRank * 2 * kHidden + kVocabulary * kHidden);
    tensors.pop_back();
  }
}

TEST_F(AdapterOnBase, OfTwoMatricesForTiedEmbeddingsTheHeadsIsUsed) {
  add_embeddings(kVocabulary, 0.5);
  at::Tensor& head = tensors.back().second;
  head = head + 1;
  testing::internal::CaptureStderr();
  const TrainedModel trained = open();
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("that of lm_head is used for both"));
  EXPECT_TRUE(at::equal(trained.base.model->embedding.trained->value, head));
  EXPECT_TRUE(trained.adapters->embeddings().shared);
  head = stored("model.embed_tokens.weight").to(at::kFloat);  // the base's, which it stays then
  EXPECT_TRUE(open().recipe.lora.modules_to_save.empty());
}

// As PEFT saves them after the vocabulary was resized: the trained copy is float32, the base has 16
// bits.
TEST_F(AdapterOnBase, WhatPeftWritesOfAWrappedEmbeddingIsPassedOver) {
  const at::Tensor own = stored("model.embed_tokens.weight");
  const at::Tensor trained_copy = own.to(at::kFloat) + 0.5;
  const std::string module = "base_model.model.model.embed_tokens";
  config["modules_to_save"] = {"embed_tokens"};
  tensors.emplace_back(module + ".weight", trained_copy);
  tensors.emplace_back(module + ".modules_to_save.weight", trained_copy);
  tensors.emplace_back(module + ".original_module.weight", own);
  tensors.emplace_back("base_model.model.lm_head.weight", own);
  const TrainedModel trained = open();
  EXPECT_TRUE(at::equal(trained.base.model->embedding.trained->value, trained_copy));
  EXPECT_FALSE(trained.adapters->embeddings().whole_head);
  tensors[tensors.size() - 3].second = own;  // what is there twice must be the same
  EXPECT_THAT(complaint(), HasSubstr("embed_tokens.modules_to_save.weight"));
}

TEST_F(AdapterOnBase, TheEmbeddingBelowTrainedTokensMustBeTheBases) {
  const at::Tensor own = stored("model.embed_tokens.weight").to(at::kFloat);
  const std::string wrapper = "base_model.model.model.embed_tokens.token_adapter.";
  config["trainable_token_indices"] = {3, 5};
  tensors.emplace_back(wrapper + "trainable_tokens_delta", numbers("rows", {2, kHidden}));
  tensors.emplace_back(wrapper + "base_layer.weight", own);
  const TrainedModel trained = open();
  EXPECT_TRUE(at::equal(trained.base.model->embedding.rows->rows.value,
                        tensors[tensors.size() - 2].second));
  tensors.back().second = own + 0.5;
  EXPECT_THAT(complaint(), AllOf(HasSubstr("token_adapter.base_layer.weight"),
                                 HasSubstr("give the base that the adapter was trained on")));
}

// As PEFT saves LoRA on a tied lm_head over trained tokens, which its base then has too.
TEST_F(AdapterOnBase, AnAdapterOnATiedHeadOverTrainedTokensIsReadTrainedAndWritten) {
  const std::string rows =
      "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
  config["target_modules"] = {"q_proj", "lm_head"};
  config["trainable_token_indices"] = {3, 5};
  tensors.emplace_back(rows, numbers("rows", {2, kHidden}));
  tensors.emplace_back("base_model.model.lm_head.lora_A.weight", numbers("a", {kRank, kHidden}));
  tensors.emplace_back("base_model.model.lm_head.lora_B.weight",
                       numbers("b", {kVocabulary, kRank}));
  {
    const TrainedModel trained = open();
    const lora::LoraLinear& head = trained.base.model->head.layers().front();
    EXPECT_TRUE(at::equal(head.adapter->b, tensors.back().second));
    for (const lora::TrainedRows* of :
         {trained.base.model->embedding.rows.get(), head.trained_rows.get()}) {
      ASSERT_NE(of, nullptr);
      EXPECT_TRUE(at::equal(of->rows.value, tensors[tensors.size() - 3].second));
    }
  }
  const Recipe recipe = trained_and_resumed();
  std::vector<std::string> names, wanted;
  for (const auto& [name, value] :
       quant::read_tensors(fs::path(recipe.output.dir) / "adapter/adapter_model.safetensors"))
    names.push_back(name);
  for (const auto& [name, value] : tensors) wanted.push_back(name);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(wanted));
}

TEST_F(AdapterOnBase, TrainingGoesOnFromAWrappedEmbeddingAndIsResumed) {
  const at::Tensor own = stored("model.embed_tokens.weight").to(at::kFloat);
  const std::string module = "base_model.model.model.embed_tokens";
  config["modules_to_save"] = {"embed_tokens"};
  for (const char* name : {".weight", ".modules_to_save.weight"})
    tensors.emplace_back(module + name, own + 0.5);
  tensors.emplace_back(module + ".original_module.weight", own);
  write();
  const Recipe recipe = trained_and_resumed();
  ModelChoice choice;
  choice.run_dir = recipe.output.dir;
  EXPECT_TRUE(open_model(choice).adapters->embeddings().whole_embedding);
}

// What a plan counts of an adapter while it is read: by the header of its file, and by what
// adapter_config.json says.
TEST_F(AdapterOnBase, ItsTensorsTakeTheirBytesOnceAndWhatIsComparedTwiceTheBases) {
  constexpr int64_t kFactors = 2 * 2 * kRank * kHidden * 4, kMatrix = kVocabulary * kHidden * 4;
  const auto planned = [this] {
    write();
    Recipe recipe = test::tiny_recipe(dir.path());
    recipe.lora.from_adapter = dir / "adapter";
    adopt_adapter_options(recipe);
    const model::ModelHeader header = model::read_model_header(recipe.model.path);
    return planned_run(recipe, header, false).adapter_reading_bytes;
  };
  EXPECT_EQ(planned(), kFactors);
  const quant::NamedTensors factors = tensors;
  add_embeddings(kVocabulary, 0);  // passed over, once compared with the base's in bfloat16
  EXPECT_EQ(planned(), kMatrix);
  tensors = factors;
  add_embeddings(kVocabulary, 0.5);  // in place of the base's
  EXPECT_EQ(planned(), kFactors + 2 * kMatrix);
  config["modules_to_save"] = {"embed_tokens"};
  tensors.pop_back();
  EXPECT_EQ(planned(), kFactors + kMatrix);
}

TEST_F(AdapterOnBase, OneThatIsGoneAfterTheRunTakesNothing) {
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.lora.from_adapter = dir / "gone";
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  EXPECT_EQ(planned_run(recipe, header, false).adapter_reading_bytes, 0);
}

TEST_F(AdapterOnBase, AnotherVocabularyIsRefusedWithBothSizes) {
  add_embeddings(kVocabulary + 2, 0);
  EXPECT_THAT(complaint(), AllOf(HasSubstr("260 tokens"), HasSubstr("has 258"),
                                 HasSubstr("resize the base's embeddings")));
}

TEST_F(AdapterOnBase, TensorsThatNoTargetNamesAreRefused) {
  config["target_modules"] = {"k_proj"};
  EXPECT_THAT(complaint(), AllOf(HasSubstr("k_proj"), HasSubstr("q_proj")));
}

TEST_F(AdapterOnBase, OneThatCannotBeReadLeavesTheModelWithoutAnAdapter) {
  const TrainedModel trained = open();
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.lora.targets = {"q_proj"};
  recipe.lora.rank = kRank;
  recipe.lora.from_adapter = dir / "adapter";
  tensors.pop_back();
  write();
  EXPECT_THROW(attach_adapters(recipe, trained.base), FormatError);
  for (const lora::LinearGroup* group : trained.base.model->parts().all_groups())
    for (const lora::LoraLinear& layer : group->layers()) EXPECT_EQ(layer.adapter, nullptr);
}

TEST_F(AdapterOnBase, APickleIsNamed) {
  write();
  fs::rename(dir / "adapter/adapter_model.safetensors", dir / "adapter/adapter_model.bin");
  EXPECT_THAT([&] { fit_adapter(dir / "adapter", dir / "model"); },
              ThrowsMessage<FormatError>(
                  AllOf(HasSubstr("adapter_model.bin"), HasSubstr("save_pretrained"))));
}

TEST_F(AdapterOnBase, WhatOloraAddedIsTakenOffTheBase) {
  config["init_lora_weights"] = "olora";
  const TrainedModel trained = open();
  const at::Tensor weight = stored("model.layers.1.self_attn.q_proj.weight").to(at::kFloat);
  const auto [q, r] = at::linalg_qr(weight, "reduced");
  const at::Tensor product = q.narrow(1, 0, kRank).mm(r.narrow(0, 0, kRank)) * 2;  // 8 / 4
  EXPECT_TRUE(at::equal(base_of(trained, 1), (weight - product).to(at::kBFloat16).to(at::kFloat)));
  EXPECT_TRUE(trained.base.changed);
}

TEST_F(AdapterOnBase, WhatPissaAddedIsTakenOffTheBase) {
  const at::Tensor weight = stored("model.layers.0.self_attn.q_proj.weight").to(at::kFloat);
  const auto [u, s, vh] = at::linalg_svd(weight, false);
  const at::Tensor rest = u.narrow(1, kRank, kHidden - kRank)
                              .mm(at::diag(s.narrow(0, kRank, kHidden - kRank)))
                              .mm(vh.narrow(0, kRank, kHidden - kRank));
  for (const char* init : {"pissa", "pissa_niter_16"}) {
    config["init_lora_weights"] = init;
    EXPECT_TRUE(at::allclose(base_of(open(), 0), rest, 0x1p-8, 1e-6)) << init;
  }
}

TEST_F(AdapterOnBase, APissaThatWasDrawnAtRandomIsTakenOffWithAWarning) {
  for (const char* init : {"pissa", "pissa_niter_4"}) {
    config["init_lora_weights"] = init;
    testing::internal::CaptureStderr();
    EXPECT_TRUE(open().base.changed) << init;
    const std::string said = testing::internal::GetCapturedStderr();
    if (init == std::string("pissa"))
      EXPECT_THAT(said, testing::Not(HasSubstr("at random")));
    else
      EXPECT_THAT(said, AllOf(HasSubstr("adapter_config.json.init_lora_weights is 'pissa_niter_4'"),
                              HasSubstr("at random"), HasSubstr("the exact one")));
  }
}

TEST_F(AdapterOnBase, PlainInitialisationsLeaveTheBase) {
  for (const json& init :
       {json(true), json(false), json("gaussian"), json("eva"), json("mica"), json("orthogonal")}) {
    config["init_lora_weights"] = init;
    EXPECT_FALSE(open().base.changed) << init;
  }
}

TEST_F(AdapterOnBase, InitialisationsThatCannotBeRepeatedAreRefused) {
  for (const char* init : {"corda", "lora_ga", "loftq"}) {
    config["init_lora_weights"] = init;
    EXPECT_THAT(complaint(),
                AllOf(HasSubstr("adapter_config.json.init_lora_weights"), HasSubstr(init)));
  }
  config["init_lora_weights"] = "of_tomorrow";
  EXPECT_THAT(complaint(), HasSubstr("of_tomorrow"));
}

TEST_F(AdapterOnBase, PissaNeedsABaseOf16Bits) {
  config["init_lora_weights"] = "pissa";
  write();
  Recipe recipe;
  recipe.model.path = dir / "model";
  recipe.quantization.method = "nf4";
  recipe.lora = fit_adapter(dir / "adapter", dir / "model").options;
  recipe.lora.from_adapter = dir / "adapter";
  EXPECT_THAT([&] { load_base(recipe, at::kCPU); },
              ThrowsMessage<ConfigError>(
                  AllOf(HasSubstr("init_lora_weights"), HasSubstr("quantization.method: none"))));
}

TEST_F(AdapterOnBase, AnExportIsOfTheBaseThatItBelongsTo) {
  config["init_lora_weights"] = "olora";
  TrainedModel trained = open();
  ExportOptions merged{"merged", dir / "merged", "float32"};
  export_model(trained, merged);
  for (const auto& [name, value] : quant::read_tensors(dir / "merged/model.safetensors"))
    if (name == "model.layers.1.self_attn.q_proj.weight") {
      const at::Tensor sum = base_of(trained, 1) + tensors[3].second.mm(tensors[2].second) * 2;
      EXPECT_TRUE(at::allclose(value, sum, 1e-5, 1e-6));
    }
  EXPECT_THAT(
      [&] {
        export_model(trained, {"adapter", dir / "again", "float32"});
      },
      ThrowsMessage<ConfigError>(HasSubstr("init_lora_weights")));
}

TEST_F(AdapterOnBase, TrainingFromItKeepsTheChangedBaseWithTheRun) {
  config["init_lora_weights"] = "olora";
  write();
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.quantization = {};
  recipe.quantization.method = "none";
  recipe.lora.from_adapter = dir / "adapter";
  recipe.train.max_steps = 2;
  recipe.train.eval_every = recipe.train.save_every = 1;
  recipe.optim.lr = 0;  // the first step is the best
  testing::internal::CaptureStderr();
  finetune(recipe, std::atomic<bool>(false));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("export of step 1, which had the lowest evaluation loss"),
                    HasSubstr("qlora export " + recipe.output.dir + " --checkpoint best ")));
  ModelChoice choice;
  choice.run_dir = recipe.output.dir;
  for (const char* checkpoint : {"", "best"}) {
    choice.checkpoint = checkpoint;
    EXPECT_TRUE(at::equal(base_of(open_model(choice), 1), base_of(open(), 1))) << checkpoint;
  }
  choice.checkpoint.clear();
  recipe.train.max_steps = 4;
  recipe.train.on_extend = "rescale";
  finetune(recipe, std::atomic<bool>(false));  // on the base that was saved
  EXPECT_TRUE(at::equal(base_of(open_model(choice), 1), base_of(open(), 1)));
}

TEST(AdapterNames, OfOtherWritersArePefts) {
  const std::string peft = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight";
  for (const char* name :
       {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight",
        "base_model.model.base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
        "model.layers.0.mlp.up_proj.lora_A.weight",
        "_orig_mod.base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
        "module.base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
        "base_model.model._orig_mod.model.layers.0.mlp.up_proj.lora_A.weight"})
    EXPECT_EQ(lora::peft_tensor_name(name), peft) << name;
  const std::string vector = "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector";
  for (const char* suffix : {"", ".weight", ".default", ".default.weight"})
    EXPECT_EQ(lora::peft_tensor_name(vector + suffix), vector) << suffix;
  for (const char* other : {"base_model.model.lm_head.weight", "vision.layers.0.lora_A.weight"})
    EXPECT_EQ(lora::peft_tensor_name(other), other);
}

}  // namespace
}  // namespace qlora::recipes
