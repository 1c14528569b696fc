// `qlora inspect` of models and runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "recipes/quantize_model.h"
#include "tests/cli/program.h"

namespace qlora::test {
namespace {

using nlohmann::json;
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
  recipes::quantize_model(options);
  const json facts = inspected(dir, dir / "quantized");
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

}  // namespace
}  // namespace qlora::test
