// `qlora inspect` of models and runs.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "io/gguf.h"
#include "quant/tensor_file.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/run_files/run_names.h"
#include "tests/cli/program.h"

namespace qlora::test {
namespace {

using nlohmann::json;
using testing::ContainsRegex;
using testing::HasSubstr;

json inspected(const TempDir& dir, const std::string& path) {
  const Finished done = run_qlora(dir, {"inspect", path, "--json"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  return json::parse(done.out);
}

int64_t number(const json& row, const char* key) { return row.at(key).get<int64_t>(); }
std::string format(const json& row) { return row.at("format").get<std::string>(); }

json row_of(const json& facts, const std::string& module) {
  for (const json& row : facts.at("footprint").at("rows"))
    if (row.at("module") == module) return row;
  return nullptr;
}

TEST(Inspect, AQuantizedDirectoryIsATableByModuleAndFormat) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  recipes::QuantizeOptions options;
  options.model = dir / "model";
  options.output = dir / "quantized";
  options.quantization.method = "nf4";
  options.report = true;
  const recipes::QuantizationReport report = recipes::quantize_model(options);
  const json facts = inspected(dir, dir / "quantized");
  EXPECT_EQ(facts.at("family").get<std::string>(), "llama");
  EXPECT_EQ(format(row_of(facts, "down_proj")), "nf4+dq");
  EXPECT_EQ(number(row_of(facts, "down_proj"), "parameters"), 2 * 48 * 32);
  EXPECT_EQ(number(row_of(facts, "embedding"), "bytes"), 2 * 258 * 32);
  int64_t bytes = 0;
  for (const auto& [format, sum] : facts.at("footprint").at("formats").items())
    bytes += number(sum, "bytes");
  EXPECT_EQ(number(facts.at("footprint").at("total"), "bytes"), bytes);
  const Finished text = run_qlora(dir, {"inspect", dir / "quantized"});
  EXPECT_THAT(text.out, HasSubstr("down_proj"));
  EXPECT_THAT(text.out, HasSubstr("nf4+dq"));
  EXPECT_THAT(text.out, HasSubstr("total"));
  EXPECT_THAT(text.out, HasSubstr("largest_in: " + report.errors().largest_in));
  const json& errors = facts.at("quantization_errors");
  EXPECT_NEAR(errors.at("mean_relative_error").get<double>(), report.errors().mean, 1e-9);
  EXPECT_TRUE(errors.at("against_16_bit").is_object());
}

// 4 bits and a float16 scale and zero for each 16 weights.
TEST(Inspect, BitsAWeightCountScalesAndTables) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  recipes::QuantizeOptions options;
  options.model = dir / "model";
  options.output = dir / "quantized";
  options.quantization.method = "hqq";
  options.hqq.group_size = 16;
  recipes::quantize_model(options);
  const json row = row_of(inspected(dir, dir / "quantized"), "down_proj");
  EXPECT_EQ(format(row), "hqq, 4 bit");
  const double bits = row.at("bits_a_weight").get<double>();
  EXPECT_GE(bits, 6.0);
  EXPECT_LT(bits, 9.0);  // hqq's tensors of settings are some hundred bytes a layer
  EXPECT_EQ(bits, 8.0 * static_cast<double>(number(row, "bytes")) /
                      static_cast<double>(number(row, "parameters")));
  EXPECT_FALSE(inspected(dir, dir / "quantized").contains("quantization_errors"));
  const json unquantized = row_of(inspected(dir, dir / "model"), "down_proj");
  EXPECT_EQ(unquantized.at("bits_a_weight").get<double>(), 16.0);
}

// Matrices of 64 Ki and 32 Ki weights, beside which the tables of a packed layer are small.
TEST(Inspect, EveryMatrixOfEveryExpertIsInFourBitsAndRoutersAreNot) {
  TempDir dir;
  write_made_directory(dir / "model", R"({
    "model_type": "mixtral", "vocab_size": 258, "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 64,
    "tie_word_embeddings": false})");
  const Finished done = run_qlora(dir, {"quantize", "--model", dir / "model", "--method", "nf4",
                                        "--output", dir / "quantized"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const json facts = inspected(dir, dir / "quantized");
  EXPECT_EQ(facts.at("family").get<std::string>(), "mixtral");
  for (const auto& [module, numbers] :
       {std::pair("gate_up_proj", 2 * 256 * 128), std::pair("down_proj", 128 * 256)}) {
    const json row = row_of(facts, module);
    EXPECT_EQ(format(row), "nf4+dq") << module;
    EXPECT_EQ(number(row, "count"), 2 * 4) << module;
    EXPECT_EQ(number(row, "parameters"), 2 * 4 * numbers) << module;
    EXPECT_GT(row.at("bits_a_weight").get<double>(), 4.0) << module;
    EXPECT_LT(row.at("bits_a_weight").get<double>(), 4.5) << module;
  }
  EXPECT_EQ(format(row_of(facts, "gate")), "bfloat16");
  const json& formats = facts.at("footprint").at("formats");
  const int64_t attention = 2 * (2 * 128 * 128 + 2 * 64 * 128), experts = 2 * 4 * 3 * 256 * 128;
  EXPECT_EQ(number(formats.at("nf4+dq"), "parameters"), attention + experts);
  EXPECT_EQ(number(formats.at("bfloat16"), "parameters"),
            2 * 258 * 128 + 2 * 4 * 128 + (2 * 2 + 1) * 128);
  const Finished text = run_qlora(dir, {"inspect", dir / "quantized"});
  EXPECT_THAT(text.out, ContainsRegex("down_proj +8 +262,144 nf4[+]dq"));
}

// Tensors of a family that no version reads, a linear layer with a long name among them.
void write_unknown_family(const TempDir& dir, const std::string& linear) {
  dir.write("unknown/config.json", R"({"model_type": "gpt99", "n_embd": 32})");
  quant::write_tensors(dir / "unknown/model.safetensors",
                       {{"wte.weight", at::zeros({61, 32}, at::kHalf)},
                        {"h.0.ln_1.weight", at::zeros({32}, at::kHalf)},
                        {"h.0." + linear + ".weight", at::zeros({96, 32}, at::kHalf)},
                        {"h.0." + linear + ".bias", at::zeros({96}, at::kHalf)}});
}

TEST(Inspect, AFamilyThatIsNotReadIsATableByTheNamesOfItsTensors) {
  TempDir dir;
  write_unknown_family(dir, "attn.c_attn");
  const json facts = inspected(dir, dir / "unknown");
  EXPECT_TRUE(facts.at("family").is_null());
  EXPECT_THAT(facts.at("not_read").get<std::string>(), HasSubstr("gpt99"));
  EXPECT_EQ(number(row_of(facts, "wte"), "parameters"), 61 * 32);
  EXPECT_EQ(number(row_of(facts, "c_attn"), "parameters"), 96 * 32);
  EXPECT_EQ(number(row_of(facts, "norms"), "bytes"), 2 * 32);
  EXPECT_EQ(number(row_of(facts, "biases"), "bytes"), 2 * 96);
  EXPECT_EQ(number(facts.at("footprint").at("total"), "bytes"), 2 * (61 * 32 + 32 + 96 * 32 + 96));
}

TEST(Inspect, AGgufAdapterIsNotCalledAModel) {
  TempDir dir;
  io::GgufWriter writer(
      dir / "adapter.gguf",
      {{"general.type", std::string("adapter")}, {"general.architecture", std::string("llama")}},
      {});
  writer.finish();
  const json facts = inspected(dir, dir / "adapter.gguf");
  EXPECT_EQ(facts.at("kind"), "GGUF adapter");
  EXPECT_THAT(facts.at("not_read").get<std::string>(), HasSubstr("lora.from_adapter"));
}

TEST(Inspect, TheColumnsOfTheTableAreAsWideAsTheLongestName) {
  TempDir dir;
  write_unknown_family(dir, "a_linear_layer_with_a_long_name");
  const Finished text = run_qlora(dir, {"inspect", dir / "unknown"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  std::istringstream table(text.out.substr(text.out.find("footprint:\n") + 11));
  std::set<size_t> lengths;
  for (std::string line; std::getline(table, line);) lengths.insert(line.size());
  EXPECT_EQ(lengths.size(), 1u) << text.out;
  EXPECT_THAT(text.out, HasSubstr("a_linear_layer_with_a_long_name"));
}

TEST(Inspect, NamesInFilesDoNotSteerTheTerminal) {
  TempDir dir;
  write_unknown_family(dir, "red\x1b[31m");
  dir.write("unknown/config.json", R"({"model_type": "blue\u001b[34m"})");
  const Finished text = run_qlora(dir, {"inspect", dir / "unknown"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(text.out.find('\x1b'), std::string::npos);
  EXPECT_THAT(text.out, HasSubstr("red\\x1B[31m"));
  EXPECT_THAT(text.out, HasSubstr("model_type: blue\\x1B[34m"));
}

TEST(Inspect, TheDataOfARecipeShowWhatWeightsMakeOfAnEpoch) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  const auto shown = [&] {
    return run_qlora(dir, {"inspect", "data", write_recipe_file(dir, recipe)}).out;
  };
  EXPECT_THAT(shown(), testing::Not(HasSubstr("mixture")));
  write_tiny_rows(dir / "more.jsonl", 7);
  recipe.data.train.push_back({dir / "more.jsonl", "chat", {}});
  recipe.data.train[0].weight = 2;
  recipe.data.train[1].weight = 1;
  EXPECT_THAT(shown(), testing::AllOf(HasSubstr("mixture by rows: an epoch has 30 examples"),
                                      HasSubstr("rows.jsonl: weight 2, 66.7 % of the examples"),
                                      HasSubstr("more.jsonl: weight 1, 33.3 % of the examples")));
}

TEST(Inspect, ARunShowsWhatItKeepsInMemory) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", recipe}).exit_code, 0);
  const json facts = inspected(dir, dir / "run");
  EXPECT_EQ(facts.at("kind").get<std::string>(), "run");
  EXPECT_EQ(format(row_of(facts, "q_proj")), "nf4+dq");
  EXPECT_EQ(format(row_of(facts, "norms")), "float32");
  const json adapter = row_of(facts, "adapter");
  EXPECT_EQ(format(adapter), "float32");
  EXPECT_EQ(number(adapter, "bytes"), 4 * number(adapter, "parameters"));
  std::filesystem::remove_all(dir / "model");
  EXPECT_TRUE(inspected(dir, dir / "run").at("footprint").is_null());
}

TEST(Inspect, OfARunThatIsBeingReplacedNothingOfTheOldOneIsShown) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.output.save_base = true;
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  ASSERT_TRUE(std::filesystem::exists(dir / "run/base/config.json"));
  recipe.quantization = {};
  recipe.quantization.method = "none";
  dir.write(std::string("run/") + recipes::kReplacingRecipe, recipes::write_recipe(recipe));
  const json facts = inspected(dir, dir / "run");
  EXPECT_EQ(format(row_of(facts, "q_proj")), "bfloat16");
  EXPECT_TRUE(row_of(facts, "adapter").is_null());
  EXPECT_TRUE(facts.at("last_checkpoint").is_null());
}

}  // namespace
}  // namespace qlora::test
