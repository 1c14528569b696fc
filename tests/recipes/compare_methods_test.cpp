// Methods of quantization side by side on the tiny model.
#include "recipes/exports/compare_methods.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/stop.h"
#include "model/load.h"
#include "tests/support/small_t5.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/evaluate.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class CompareMethods : public ::testing::Test {
 protected:
  CompareMethods() {
    test::write_tiny_directory(dir_ / "model");
    test::write_tiny_rows(dir_ / "rows.jsonl", 40);
    test::write_tiny_rows(dir_ / "eval.jsonl", 6);
  }

  CompareOptions options_of(const std::vector<std::string>& methods) const {
    CompareOptions options;
    options.methods = methods;
    options.quantize.model = dir_ / "model";
    options.quantize.device = "cpu";
    options.quantize.hqq.group_size = 16;
    options.quantize.gptq.group_size = 16;
    options.quantize.calibration.data.path = dir_ / "rows.jsonl";
    options.quantize.calibration.data.format = "chat";
    options.quantize.calibration.sequence_length = 64;
    options.scratch_directory = dir_.path();
    return options;
  }

  static std::map<std::string, MethodRow> by_method(const MethodTable& table) {
    std::map<std::string, MethodRow> rows;
    for (const MethodRow& row : table.rows) rows[row.method] = row;
    return rows;
  }

  std::set<std::string> files() const {
    std::set<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(dir_.path()))
      all.insert(entry.path().string());
    return all;
  }

  static std::string message(const CompareOptions& options) {
    try {
      compare_methods(options);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  }

  const test::TempDir dir_;
};

TEST_F(CompareMethods, TheModelItselfStandsFirstAndIsAsItIs) {
  const MethodTable table = compare_methods(options_of({"hqq:3", "nf4", "gptq:2"}));
  ASSERT_EQ(table.rows.size(), 4u);
  EXPECT_EQ(table.rows[0].method, "bfloat16");
  EXPECT_EQ(table.rows[1].method, "hqq:3");
  EXPECT_EQ(table.rows[2].method, "nf4");
  EXPECT_EQ(table.rows[3].method, "gptq:2");
  const MethodRow& original = table.rows[0];
  EXPECT_EQ(original.bits, 16.0);
  EXPECT_EQ(original.kl, 0.0);
  EXPECT_EQ(original.top1, 1.0);
  EXPECT_EQ(original.errors.mean, 0.0);
  EXPECT_GT(original.loss, 0.0);
  EXPECT_EQ(table.calibration.name, "rows.jsonl");
  EXPECT_GT(table.calibration.tokens, 0);
}

TEST_F(CompareMethods, FewerBitsAreSmallerAndLoseMore) {
  const auto rows = by_method(compare_methods(
      options_of({"int8", "nf4", "gptq:4", "gptq:3", "gptq:2", "hqq:4", "hqq:3", "hqq:2"})));
  const auto expect_worse = [&](const char* better, const char* worse) {
    EXPECT_LT(rows.at(better).errors.mean, rows.at(worse).errors.mean) << better << " " << worse;
  };
  expect_worse("bfloat16", "int8");
  expect_worse("int8", "nf4");
  expect_worse("nf4", "gptq:2");
  for (const std::string method : {"gptq", "hqq"})
    for (const auto& [more, fewer] : {std::pair{":4", ":3"}, std::pair{":3", ":2"}}) {
      const MethodRow &larger = rows.at(method + more), &smaller = rows.at(method + fewer);
      EXPECT_LT(larger.errors.mean, smaller.errors.mean) << smaller.method;
      EXPECT_GT(larger.bits, smaller.bits) << smaller.method;
      EXPECT_GT(larger.bytes, smaller.bytes) << smaller.method;
      EXPECT_GT(rows.at("bfloat16").bytes, larger.bytes) << larger.method;
    }
  EXPECT_GT(rows.at("int8").kl, 0.0);
  EXPECT_LT(rows.at("int8").kl, rows.at("gptq:2").kl);
  for (const auto& [method, row] : rows) EXPECT_GE(row.errors.largest, row.errors.mean) << method;
}

// In float32, so that the products of packed and of decoded weights differ by little.
TEST_F(CompareMethods, AMethodIsFoundToDoWhatQuantizingReportsOfIt) {
  CompareOptions options = options_of({"nf4", "int8", "gptq:3", "hqq:3"});
  options.quantize.dtype = "float32";
  const auto rows = by_method(compare_methods(options));
  for (const char* method : {"nf4", "int8", "gptq", "hqq"}) {
    QuantizeOptions alone = options.quantize;
    alone.output = dir_ / method;
    alone.quantization.method = method;
    alone.gptq.bits = alone.hqq.bits = 3;
    alone.report = true;
    const QuantizationReport report = quantize_model(alone);
    const bool has_bits = rows.contains(method + std::string(":3"));
    const MethodRow& row = rows.at(has_bits ? method + std::string(":3") : method);
    EXPECT_DOUBLE_EQ(row.errors.mean, report.errors().mean) << method;
    EXPECT_EQ(row.errors.largest_in, report.errors().largest_in) << method;
    const double kl = report.agreement->kl_mean;
    EXPECT_NEAR(row.kl, kl, 0.01 * kl + 1e-6) << method;
    EXPECT_NEAR(row.loss, report.agreement->loss, 1e-4) << method;
  }
}

TEST_F(CompareMethods, BitsThatAMethodDoesNotNameAreThoseOfTheOptions) {
  CompareOptions options = options_of({"hqq", "hqq:4", "hqq:2"});
  options.quantize.hqq.bits = 2;
  const auto rows = by_method(compare_methods(options));
  EXPECT_EQ(rows.at("hqq").errors.mean, rows.at("hqq:2").errors.mean);
  EXPECT_LT(rows.at("hqq:4").errors.mean, rows.at("hqq").errors.mean);
  EXPECT_THAT(rows.at("hqq").settings, HasSubstr("2 bit"));
}

TEST_F(CompareMethods, TheLossIsThatOfTheHeldOutRowsAnswers) {
  CompareOptions options = options_of({"nf4"});
  options.held_out.path = dir_ / "eval.jsonl";
  options.held_out.format = "chat";
  const MethodTable table = compare_methods(options);
  EXPECT_EQ(table.held_out, "eval.jsonl");

  const auto source = model::open_weights(dir_ / "model");
  quant::QuantizationOptions none;
  none.method = "none";
  const auto model = model::load_model(*source, {}, none, at::kCPU, at::kBFloat16);
  const auto examples = read_held_out_rows(
      options.held_out, 64, *data::load_tokenizer(dir_ / "model"), model->architecture());
  const trainer::Evaluation found = trainer::evaluate_loss(*model, examples, false);
  EXPECT_EQ(table.predicted_tokens, found.supervised_tokens);
  EXPECT_EQ(table.compared_tokens, found.tokens);  // questions, too
  EXPECT_GT(table.compared_tokens, table.predicted_tokens);
  EXPECT_DOUBLE_EQ(table.rows[0].loss, found.loss);
  EXPECT_NE(table.rows[1].loss, found.loss);
}

TEST_F(CompareMethods, ModelsWithAnEncoderAreComparedOnTheirRowsOfBothSides) {
  test::write_small_t5(dir_ / "t5", 48);
  dir_.write("pairs.jsonl", R"({"prompt": "one and one", "completion": "two"})");
  CompareOptions options = options_of({"int8", "hqq:2"});
  options.quantize.model = dir_ / "t5";
  options.held_out.path = dir_ / "pairs.jsonl";
  options.held_out.format = "completion";
  const MethodTable table = compare_methods(options);
  EXPECT_EQ(table.rows[0].kl, 0.0);
  EXPECT_LT(table.rows[1].errors.mean, table.rows[2].errors.mean);
  options.methods = {"gptq:4"};
  EXPECT_THAT(message(options), HasSubstr("encoder"));
}

TEST_F(CompareMethods, TheTableSaysTheSameInEachForm) {
  const MethodTable table = compare_methods(options_of({"int8", "gptq:3"}));
  const auto json = nlohmann::json::parse(table.to_json());
  ASSERT_EQ(json["methods"].size(), 3u);
  EXPECT_EQ(json["methods"][0]["kl"], 0.0);
  EXPECT_EQ(json["methods"][2]["method"], "gptq:3");
  EXPECT_EQ(json["methods"][2]["bytes"], table.rows[2].bytes);
  EXPECT_THAT(std::string(json["methods"][2]["settings"]), HasSubstr("gptq, 3 bit, group size 16"));
  EXPECT_EQ(json["calibration"]["tokens"], table.calibration.tokens);
  EXPECT_THAT(table.to_markdown(), AllOf(HasSubstr("| method | bits a weight |"),
                                         HasSubstr("\n|---|---:|"), HasSubstr("\n| gptq:3 | ")));
  EXPECT_THAT(table.to_text(),
              AllOf(HasSubstr("method"), HasSubstr("\nint8"), HasSubstr("calibrated on")));
}

TEST_F(CompareMethods, WithoutRowsTheCalibratedMethodsAreRefusedByName) {
  CompareOptions options = options_of({"nf4", "gptq:4", "hqq:4", "gptq:2"});
  options.quantize.calibration.data.path.clear();
  EXPECT_THAT(message(options), AllOf(HasSubstr("gptq:4, gptq:2 must be calibrated"),
                                      HasSubstr("--data FILE"), HasSubstr("leave them out")));
  options.methods = {"nf4", "hqq:4"};
  EXPECT_EQ(compare_methods(options).rows.size(), 3u);
}

TEST_F(CompareMethods, WhatIsNoMethodIsRefused) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{}, "--compare must name methods"},
      {{"nf4", "q4_k"}, "found 'q4_k'"},
      {{"nf4:4"}, "nf4 has no bits to choose"},
      {{"gptq:"}, "a number of bits"},
      {{"hqq:3x"}, "a number of bits"},
      {{"gptq:5"}, "--bits of gptq"},
      {{"int8", "nf4", "int8"}, "names int8 twice"}};
  for (const auto& [methods, sentence] : cases)
    EXPECT_THAT(message(options_of(methods)), HasSubstr(sentence));
  CompareOptions options = options_of({"nf4"});
  options.held_out.path = dir_ / "eval.jsonl";
  options.held_out.format = "preference";
  EXPECT_THAT(message(options), HasSubstr("--held-out"));
}

TEST_F(CompareMethods, AnInterruptedComparisonLeavesNothing) {
  CompareOptions options = options_of({"nf4", "gptq:4", "gptq:3", "gptq:2", "hqq:4"});
  options.quantize.calibration.max_memory_bytes = 1;  // activations lie in a file
  const std::set<std::string> before = files();
  for (const int milliseconds : {0, 10, 40, 120}) {
    std::atomic<bool> stop = milliseconds == 0;
    const ObeyStop obey(stop);
    const std::jthread wish([&stop, milliseconds] {
      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
      stop = true;
    });
    bool was_stopped = false;
    try {
      compare_methods(options);
    } catch (const Stopped&) {
      was_stopped = true;
    }
    EXPECT_TRUE(was_stopped || milliseconds > 0);
    EXPECT_EQ(files(), before) << "stopped after " << milliseconds << " ms";
  }
}

TEST_F(CompareMethods, TheFileOfATableIsCheckedBeforeAndWrittenWhole) {
  EXPECT_THROW(require_table_file(dir_ / "table.csv"), ConfigError);
  EXPECT_THROW(require_table_file(dir_ / "missing/table.md"), ConfigError);
  MethodTable table;
  table.rows.emplace_back().method = "nf4";
  write_table(table, dir_ / "table.md");
  EXPECT_EQ(test::read_file(dir_ / "table.md"), table.to_markdown());
  write_table(table, dir_ / "table.json");
  EXPECT_EQ(test::read_file(dir_ / "table.json"), table.to_json());
}

}  // namespace
}  // namespace qlora::recipes
