#include "recipes/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "model/load.h"
#include "recipes/before_loading.h"
#include "recipes/models/compute_dtype.h"
#include "recipes/ready_recipes.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/memory_fit.h"

namespace qlora::recipes {
namespace {

struct Shape {
  const char* name;
  int64_t hidden, inner, layers, heads, kv_heads, vocab;
  bool tied;
  const char* type = "llama";
};

// config.json of published models.
constexpr Shape kShapes[] = {{"SmolLM2-135M", 576, 1536, 30, 9, 3, 49152, true},
                             {"Llama-3.2-1B", 2048, 8192, 16, 32, 8, 128256, true},
                             {"Llama-3.1-8B", 4096, 14336, 32, 32, 8, 128256, false},
                             {"Llama-2-13b", 5120, 13824, 40, 40, 40, 32000, false},
                             {"llama-65b", 8192, 22016, 80, 64, 64, 32000, false},
                             {"Llama-3.1-70B", 8192, 28672, 80, 64, 8, 128256, false},
                             {"Qwen3-8B", 4096, 12288, 36, 32, 8, 151936, false, "qwen3"},
                             {"gemma-3-4b", 2560, 10240, 34, 8, 4, 262208, true, "gemma3_text"},
                             {"Mistral-7B", 4096, 14336, 32, 32, 8, 32768, false, "mistral"},
                             {"phi-4", 5120, 17920, 40, 40, 10, 100352, false, "phi3"}};

// The same of models whose keys are not Llama's.
struct Config {
  const char* name;
  const char* json;
};

constexpr Config kConfigs[] = {
    {"gpt2-xl", R"({"model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024,
                    "layer_norm_epsilon": 1e-5, "n_embd": 1600, "n_head": 25, "n_layer": 48,
                    "n_positions": 1024, "vocab_size": 50257})"},
    {"opt-1.3b", R"({"model_type": "opt", "activation_function": "relu", "ffn_dim": 8192,
                     "do_layer_norm_before": true, "hidden_size": 2048, "vocab_size": 50272,
                     "max_position_embeddings": 2048, "num_attention_heads": 32,
                     "num_hidden_layers": 24, "word_embed_proj_dim": 2048})"},
    {"bloom-1b7", R"({"model_type": "bloom", "layer_norm_epsilon": 1e-5, "n_embed": 2048,
                      "n_layer": 24, "num_attention_heads": 16, "vocab_size": 250880})"},
    {"Mixtral-8x7B", R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
                         "max_position_embeddings": 32768, "num_attention_heads": 32,
                         "num_experts_per_tok": 2, "num_hidden_layers": 32,
                         "num_key_value_heads": 8, "num_local_experts": 8, "rope_theta": 1e6,
                         "rms_norm_eps": 1e-5, "sliding_window": null, "vocab_size": 32000})"},
    {"gpt-oss-20b", R"({"model_type": "gpt_oss", "head_dim": 64, "hidden_size": 2880,
                        "intermediate_size": 2880, "max_position_embeddings": 131072,
                        "num_attention_heads": 64, "num_experts_per_tok": 4,
                        "num_hidden_layers": 24, "num_key_value_heads": 8,
                        "num_local_experts": 32, "rms_norm_eps": 1e-5, "sliding_window": 128,
                        "swiglu_limit": 7.0, "tie_word_embeddings": false, "vocab_size": 201088,
                        "quantization_config": {"quant_method": "mxfp4"}})"},
    {"flan-t5-large", R"({"model_type": "t5", "d_ff": 2816, "d_kv": 64, "d_model": 1024,
                          "feed_forward_proj": "gated-gelu", "num_decoder_layers": 24,
                          "num_heads": 16, "num_layers": 24, "tie_word_embeddings": false,
                          "vocab_size": 32128})"}};

// Writes the config.json of one; the file's path.
std::string config_of(const test::TempDir& dir, const std::string& model) {
  for (const Config& c : kConfigs)
    if (model.find(c.name) != std::string::npos)
      return dir.write(std::string(c.name) + "/config.json", c.json);
  for (const Shape& s : kShapes) {
    if (model.find(s.name) == std::string::npos) continue;
    const nlohmann::json config = {
        {"model_type", s.type},           {"hidden_size", s.hidden},
        {"intermediate_size", s.inner},   {"num_hidden_layers", s.layers},
        {"num_attention_heads", s.heads}, {"num_key_value_heads", s.kv_heads},
        {"vocab_size", s.vocab},          {"rms_norm_eps", 1e-5},
        {"tie_word_embeddings", s.tied}};
    return dir.write(std::string(s.name) + "/config.json", config.dump());
  }
  throw Error("no shape is known for " + model);
}

Recipe ready(const test::TempDir& dir, const std::string& name) {
  Recipe recipe = read_recipe(dir.write(name + ".yaml", ready_recipe(name).text));
  recipe.model.path = config_of(dir, recipe.model.path);
  return recipe;
}

trainer::MemoryPlan plan_of(const Recipe& recipe, bool on_gpu) {
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  return trainer::plan_memory(planned_run(recipe, header, on_gpu));
}

int64_t adapter_bytes(const trainer::MemoryPlan& plan) {
  return std::ranges::find(plan.lines, "adapters (float32)", &trainer::MemoryLine::purpose)->bytes;
}

// Of all of the model's weights, with their scales.
int64_t weight_bytes(const Recipe& recipe) {
  int64_t bytes = 0;
  for (const trainer::MemoryLine& line : plan_of(recipe, false).lines)
    for (const char* purpose :
         {"base weights", "quantization scales", "embedding, head, norms, biases"})
      if (line.purpose == purpose) bytes += line.bytes;
  return bytes;
}

double gigabytes(const trainer::MemoryPlan& plan) { return static_cast<double>(plan.peak()) / 1e9; }

TEST(Plan, AModuleToSkipThatTheModelDoesNotHaveIsRefused) {
  const test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.quantization = {.method = "nf4"};
  recipe.quantization.skip_modules = {"lm_head", "bogus"};
  EXPECT_THAT([&] { check_before_planning(recipe); },
              ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr(
                  "quantization.skip_modules: 'bogus' names no module of the model")));
  recipe.quantization.skip_modules = {"lm_head", "layers.1", "down_proj"};
  EXPECT_NO_THROW(check_before_planning(recipe));
}

TEST(Plan, EveryReadyRecipeIsPlannedFromItsConfigAlone) {
  const test::TempDir dir;
  for (const ReadyRecipe& each : ready_recipes()) {
    Recipe recipe = ready(dir, each.name);
    EXPECT_GT(gigabytes(plan_of(recipe, true)), 0.2) << each.name;
    recipe.model.path = std::filesystem::path(recipe.model.path).parent_path();
    EXPECT_GT(gigabytes(plan_of(recipe, false)), 0.2) << each.name;
  }
}

TEST(Plan, NoReadyRecipeHasLongerSequencesThanItsModelHasLearnedPositions) {
  const test::TempDir dir;
  for (const ReadyRecipe& each : ready_recipes()) {
    const Recipe recipe = ready(dir, each.name);
    const model::ModelHeader header = model::read_model_header(recipe.model.path);
    EXPECT_LE(recipe.data.sequence_length, header.architecture.longest_document()) << each.name;
  }
}

// "# The plan is 11.3 GB at the peak": what they say of themselves.
TEST(Plan, ThePeaksThatReadyRecipesNameAreThoseOfTheirPlans) {
  const test::TempDir dir;
  constexpr std::string_view kBefore = "The plan is ", kBehind = " GB at the peak";
  int told = 0;
  for (const ReadyRecipe& each : ready_recipes()) {
    const size_t at = each.text.find(kBefore);
    if (at == std::string::npos) continue;
    const std::string rest = each.text.substr(at + kBefore.size());
    ASSERT_NE(rest.find(kBehind), std::string::npos) << each.name;
    EXPECT_NEAR(gigabytes(plan_of(ready(dir, each.name), true)), std::stod(rest), 0.06)
        << each.name;
    ++told;
  }
  EXPECT_GE(told, 9);
}

TEST(Plan, ReadyRecipesFitTheMemoryTheirNamesPromise) {
  const test::TempDir dir;
  EXPECT_LT(gigabytes(plan_of(ready(dir, "llama-13b-16gb"), true)), 16);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "llama-8b-24gb"), true)), 24);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "llama-70b-48gb"), true)), 48);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "phi4-24gb"), true)), 24);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "gpt-oss-20b-24gb"), true)), 24);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "mixtral-8x7b-48gb"), true)), 48);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "smollm2-135m-cpu"), false)), 2);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "qwen3-8b"), true)), 16);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "mistral-7b"), true)), 12);
  EXPECT_LT(gigabytes(plan_of(ready(dir, "gemma3-4b"), true)), 12);
  for (const char* small : {"llama-1b", "llama-1b-dpo", "gpt2-xl", "opt-1b", "bloom-1b7"}) {
    EXPECT_LT(gigabytes(plan_of(ready(dir, small), true)), 8) << small;
    EXPECT_LT(gigabytes(plan_of(ready(dir, small), false)), 8) << small;
  }
}

TEST(Plan, AllLinearAdaptsAttentionAloneInGptOssAndEveryExpertInMixtral) {
  const test::TempDir dir;
  const auto adapters = [&dir](const char* name, const std::vector<std::string>& targets) {
    Recipe recipe = ready(dir, name);
    recipe.lora.targets = targets;
    return adapter_bytes(plan_of(recipe, true));
  };
  const std::vector<std::string> attention = {"q_proj", "k_proj", "v_proj", "o_proj"};
  EXPECT_EQ(adapters("gpt-oss-20b-24gb", {"all-linear"}), adapters("gpt-oss-20b-24gb", attention));
  // A router has 8 outputs, an expert's gate_up_proj [2 x 14336, 4096] twice the rank of 16.
  const int64_t experts = 8 * (32 * (2 * 14336 + 4096) + 16 * (4096 + 14336));
  EXPECT_EQ(
      adapters("mixtral-8x7b-48gb", {"all-linear"}) - adapters("mixtral-8x7b-48gb", attention),
      4 * 32 * (16 * (4096 + 8) + experts));
}

TEST(Plan, SixtyFiveBillionFitIntoFortyEightGigabytesAndNotWithoutDoubleQuantizationOrFourBits) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "llama-70b-48gb");
  recipe.model.path = config_of(dir, "llama-65b");
  EXPECT_LT(gigabytes(plan_of(recipe, true)), 48);
  recipe.quantization.method = "int8";
  EXPECT_GT(gigabytes(plan_of(recipe, true)), 65);
}

TEST(Plan, DoubleQuantizationSavesSixtyFiveBillionThreeGigabytes) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "llama-70b-48gb");
  recipe.model.path = config_of(dir, "llama-65b");
  const double with = gigabytes(plan_of(recipe, true));
  recipe.quantization.double_quant = false;
  // 0.373 bit of 64.8 G weights in linear layers.
  EXPECT_NEAR(gigabytes(plan_of(recipe, true)) - with, 0.373 / 8 * 64.8, 0.02);
}

TEST(Plan, ABaseSharedBetweenRanksCountsItsPartAndTwoBlocks) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "llama-70b-48gb");
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  const auto bytes_of = [](const trainer::MemoryPlan& plan, const std::string& purpose) {
    int64_t bytes = 0;
    for (const trainer::MemoryLine& line : plan.lines)
      if (line.purpose == purpose) bytes += line.bytes;
    return bytes;
  };
  Recipe sharing = recipe;
  sharing.model.device_map = {{"", "ranks"}};
  for (const int ranks : {1, 2, 4}) {
    const auto whole = trainer::plan_memory(planned_run(recipe, header, true, ranks)),
               shared = trainer::plan_memory(planned_run(sharing, header, true, ranks));
    const int64_t base = bytes_of(whole, "base weights") + bytes_of(whole, "quantization scales");
    if (ranks == 1) {
      EXPECT_EQ(shared.peak(), whole.peak());
      continue;
    }
    EXPECT_EQ(bytes_of(shared, "base weights") + bytes_of(shared, "quantization scales"), 0);
    EXPECT_EQ(bytes_of(shared, "this rank's part of the base"), base / ranks);
    EXPECT_EQ(bytes_of(shared, "blocks fetched from elsewhere"), 2 * base / 80);
    EXPECT_EQ(whole.peak() - shared.peak(), base - base / ranks - 2 * base / 80);
  }
}

// In units of 10^9 bytes, with sequences of 512 tokens, one a rank and step, and all layers
// recomputed.
TEST(Plan, WhatRanksThatShareABaseNeedEach) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "llama-70b-48gb");
  const auto of_each = [&recipe](int ranks) {
    recipe.train.gradient_accumulation_steps = ranks;
    const model::ModelHeader header = model::read_model_header(recipe.model.path);
    return gigabytes(trainer::plan_memory(planned_run(recipe, header, true, ranks)));
  };
  recipe.model.device_map = {{"", "ranks"}};
  EXPECT_NEAR(of_each(2), 28.8, 0.1);  // too much for two cards of 24 GB
  EXPECT_NEAR(of_each(4), 20.0, 0.1);
  EXPECT_NEAR(of_each(8), 15.5, 0.1);
  // With embedding and head in the host's memory and rank 8 two are enough, and for rows twice as
  // long with a tenth of the blocks there.
  recipe = ready(dir, "llama-70b-2x24gb");
  EXPECT_NEAR(of_each(2), 23.4, 0.1);
  recipe.data.sequence_length = 1024;
  EXPECT_GT(of_each(2), 24);
  for (int layer = 0; layer < 8; ++layer)
    recipe.model.device_map[fmt::format("model.layers.{}", layer)] = "cpu";
  EXPECT_LT(of_each(2), 24);
  recipe = ready(dir, "llama-8b-24gb");
  recipe.model.device_map = {{"", "ranks"}};
  recipe.train.micro_batch_size = 1;
  recipe.data.sequence_length = 512;
  EXPECT_GT(of_each(1), 8);
  EXPECT_LT(of_each(2), 8);
}

// 2 (N - 1) / N of the base, but for two of 80 blocks, which are near at the turns.
TEST(Plan, SeventyBillionOnTwoRanksGatherThirtyFourGigabytesAMicroBatch) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "llama-70b-48gb");
  recipe.model.device_map = {{"", "ranks"}};
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  trainer::PlannedRun run = planned_run(recipe, header, true, 2);
  run.rank_rate = 22e9;
  const trainer::FetchPlan gathers = trainer::plan_gathers(run, 1);
  EXPECT_NEAR(gathers.rank_bytes / 1e9, 35.31 * 78 / 80, 0.05);
  EXPECT_NEAR(gathers.seconds, 1.57, 0.01);
}

TEST(Plan, APairOfAnswersTakesTheMemoryOfTwoSequences) {
  const test::TempDir dir;
  const Recipe pairs = ready(dir, "llama-1b-dpo");
  Recipe rows = pairs;
  rows.data.train[0].format = "chat";
  rows.train.objective = "sft";
  EXPECT_GT(plan_of(pairs, true).training_peak(), plan_of(rows, true).training_peak());
  rows.train.micro_batch_size *= 2;
  EXPECT_EQ(plan_of(pairs, true).training_peak(), plan_of(rows, true).training_peak());
}

TEST(Plan, AModelsFilesAndItsLoadedWeightsGiveTheSamePlan) {
  const test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  test::write_tiny_gguf(dir / "model.gguf");
  for (const std::string& path : {dir / "model", dir / "model.gguf", dir / "model/config.json"}) {
    recipe.model.path = path;
    const model::ModelHeader header = model::read_model_header(path);
    const auto source = model::open_weights(header.weights ? path : dir / "model");
    const auto loaded = model::load_model(*source, recipe.model, recipe.quantization, at::kCPU,
                                          compute_dtype_of(recipe.train.compute_dtype, at::kCPU));
    loaded->narrow_gates = keeps_narrow_gates(recipe.train.compute_dtype, at::kCPU);
    EXPECT_EQ(
        trainer::plan_memory(planned_run(recipe, header, false)).peak(),
        trainer::plan_memory(planned_run(recipe, *loaded, recipe.data.sequence_length)).peak())
        << path;
  }
}

// Of a run on the loaded model.
int64_t peak_when_loaded(const Recipe& recipe, const std::string& model) {
  const auto source = model::open_weights(model);
  const auto loaded = model::load_model(*source, recipe.model, recipe.quantization, at::kCPU,
                                        compute_dtype_of(recipe.train.compute_dtype, at::kCPU));
  loaded->narrow_gates = keeps_narrow_gates(recipe.train.compute_dtype, at::kCPU);
  return trainer::plan_memory(planned_run(recipe, *loaded, recipe.data.sequence_length)).peak();
}

TEST(Plan, ExpertsThatStayInMxfp4AreCountedSoFromTheirFilesAndFromConfigJson) {
  const test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.quantization = {};
  test::write_mxfp4_directory(dir / "experts");
  const int64_t right = peak_when_loaded(recipe, dir / "experts");
  for (const std::string& path : {dir / "experts", dir / "experts/config.json"}) {
    recipe.model.path = path;
    EXPECT_EQ(plan_of(recipe, false).peak(), right) << path;
  }
}

TEST(Plan, ExpertsInMxfp4OfAGgufFileAreCountedAsTheyStay) {
  const test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.quantization = {};
  test::write_mxfp4_directory(dir / "experts");
  test::write_mxfp4_gguf(dir / "experts", dir / "experts.gguf");
  recipe.model.path = dir / "experts.gguf";
  EXPECT_EQ(plan_of(recipe, false).peak(), peak_when_loaded(recipe, recipe.model.path));
}

TEST(Plan, WithoutAQuantizationSectionTheExpertsOfGptOssStayInMxfp4) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "gpt-oss-20b-24gb");
  const auto base_bytes = [&recipe](const char* method) {
    recipe.quantization = {.method = method};
    const trainer::MemoryPlan plan = plan_of(recipe, true);
    int64_t bytes = 0;
    for (const trainer::MemoryLine& line : plan.lines)
      if (line.purpose == "base weights" || line.purpose == "quantization scales")
        bytes += line.bytes;
    return bytes;
  };
  const int64_t experts = int64_t{24} * 32 * 3 * 2880 * 2880;
  EXPECT_EQ(base_bytes("none") - base_bytes("as_stored"), 2 * experts - 17 * experts / 32);
}

// The numbers of parameters that the published files of these models hold, of Gemma's those of the
// text part. What no plan counts: T5's two tables of 32 x 16 biases by distance, the 24 x 64 sinks
// of gpt-oss.
TEST(Plan, ConfigJsonAloneSaysHowManyWeightsAModelHas) {
  constexpr std::pair<const char*, int64_t> kModels[] = {
      {"Llama-3.1-8B", 8'030'261'248},  {"Llama-2-13b", 13'015'864'320},
      {"llama-65b", 65'285'660'672},    {"Llama-3.1-70B", 70'553'706'496},
      {"Qwen3-8B", 8'190'735'360},      {"gemma-3-4b", 3'880'263'168},
      {"Mistral-7B", 7'248'023'552},    {"phi-4", 14'659'507'200},
      {"Mixtral-8x7B", 46'702'792'704}, {"gpt-oss-20b", 20'914'757'184 - 1'536},
      {"gpt2-xl", 1'557'611'200},       {"opt-1.3b", 1'315'758'080},
      {"bloom-1b7", 1'722'408'960},     {"flan-t5-large", 783'150'080 - 1'024}};
  const test::TempDir dir;
  Recipe recipe = ready(dir, "llama-8b-24gb");
  recipe.model.dtype = "float32";
  recipe.quantization.method = "none";
  for (const auto& [name, weights] : kModels) {
    recipe.model.path = config_of(dir, name);
    EXPECT_EQ(weight_bytes(recipe), 4 * weights) << name;
  }
}

// GPT-2 XL has 1,557,611,200 parameters. A block's four matrices of 1600 x 4800, 1600 x 1600 and
// twice 1600 x 6400 hold 30,720,000; embeddings of 50257 tokens and 1024 positions 82,049,600.
// Biases are in model.dtype, norms in float32 in any case.
TEST(Plan, TheWeightsOfGpt2XlTakeWhatTheirShapesSay) {
  constexpr int64_t kBlocks = 48, kMatrices = kBlocks * 30'720'000, kEmbeddings = 82'049'600,
                    kOutputs = kBlocks * (4800 + 1600 + 6400 + 1600),  // rows, and biases
      kNorms = kBlocks * 4 * 1600 + 2 * 1600;
  static_assert(kMatrices + kEmbeddings + kOutputs + kNorms == 1'557'611'200);
  const test::TempDir dir;
  Recipe recipe = ready(dir, "gpt2-xl");
  const auto weights = [&recipe](const quant::QuantizationOptions& options, const char* dtype) {
    recipe.quantization = options;
    recipe.model.dtype = dtype;
    return weight_bytes(recipe);
  };
  const auto unquantized = [](int64_t element) {
    return element * (kEmbeddings + kOutputs) + 4 * kNorms;
  };
  EXPECT_EQ(weights({.method = "none"}, "float32"), 4 * int64_t{1'557'611'200});  // 6.23 GB
  // A byte a weight, and a float32 a row: 1.64 GB.
  EXPECT_EQ(weights({.method = "int8"}, "float16"), kMatrices + 4 * kOutputs + unquantized(2));
  // Half a byte a weight. A scale for 64 weights: of a byte with a float32 for each 256 of them,
  // and an offset and a table of 256 float32 a matrix, 0.93 GB; or a float32, 1.00 GB.
  const int64_t scales = kMatrices / 64 + kBlocks * (4 * (469 + 157 + 2 * 625) + 4 * (4 + 1024));
  EXPECT_EQ(weights({.method = "nf4"}, "float16"), kMatrices / 2 + scales + unquantized(2));
  const quant::QuantizationOptions plain{.method = "nf4", .double_quant = false};
  EXPECT_EQ(weights(plain, "float16"), kMatrices / 2 + 4 * (kMatrices / 64) + unquantized(2));
  // With embeddings and biases in float32, as the file of GPT-2 XL has them: 1.16 GB.
  EXPECT_EQ(weights(plain, "float32"), kMatrices / 2 + 4 * (kMatrices / 64) + unquantized(4));
}

TEST(Plan, MoreRecomputedLayersThanTheModelHasAreRefused) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "smollm2-135m-cpu");
  recipe.train.gradient_checkpointing = "30";
  const int64_t all = plan_of(recipe, false).peak();
  recipe.train.gradient_checkpointing = "true";
  EXPECT_EQ(plan_of(recipe, false).peak(), all);
  recipe.train.gradient_checkpointing = "31";
  try {
    plan_of(recipe, false);
    ADD_FAILURE() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("the model's 30 layers"), std::string::npos);
  }
}

TEST(Plan, AModelThatIsNotThereSaysSo) {
  try {
    model::read_model_header("/nowhere/model");
    FAIL() << "found";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("/nowhere/model does not exist"), std::string::npos);
  }
}

TEST(Plan, AnotherQuantizationThanTheStoredOneIsRefused) {
  const test::TempDir dir;
  Recipe recipe = ready(dir, "int8");
  nlohmann::json config = nlohmann::json::parse(test::read_file(recipe.model.path));
  config["quantization_config"] = {
      {"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf4"}};
  recipe.model.path = dir.write("config.json", config.dump());
  EXPECT_THROW(plan_of(recipe, false), ConfigError);
  recipe.quantization.method = "as_stored";
  EXPECT_LT(gigabytes(plan_of(recipe, false)), gigabytes(plan_of(ready(dir, "int8"), false)));
}

}  // namespace
}  // namespace qlora::recipes
