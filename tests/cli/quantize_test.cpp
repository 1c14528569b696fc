#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::HasSubstr;

class QuantizeCommand : public ::testing::Test {
 protected:
  QuantizeCommand() {
    write_tiny_directory(dir_ / "model");
    write_tiny_rows(dir_ / "rows.jsonl", 20);
  }

  Finished quantize(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(),
                     {"quantize", "--model", dir_ / "model", "--output", dir_ / "out"});
    return run_qlora(dir_, arguments);
  }

  nlohmann::json config() const {
    return nlohmann::json::parse(read_file(dir_ / "out/config.json"))["quantization_config"];
  }

  const TempDir dir_;
};

TEST_F(QuantizeCommand, GptqIsCalibratedOnRowsOfAnyFormat) {
  const Finished done = quantize({"--method", "gptq", "--data", dir_ / "rows.jsonl", "--format",
                                  "chat", "--group-size", "16", "--act-order", "--bits", "3"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr("read back and equal"));
  EXPECT_EQ(config()["bits"], 3);
  EXPECT_EQ(config()["group_size"], 16);
  EXPECT_EQ(config()["desc_act"], true);
}

TEST_F(QuantizeCommand, AGroupOfAWholeRowIsWrittenAsEachFormatHasIt) {
  EXPECT_EQ(quantize({"--method", "hqq", "--group-size", "0"}).exit_code, 0);
  EXPECT_TRUE(config()["quant_config"]["weight_quant_params"]["group_size"].is_null());
  std::filesystem::remove_all(dir_ / "out");
  EXPECT_EQ(quantize({"--method", "gptq", "--group-size", "0", "--data", dir_ / "rows.jsonl",
                      "--format", "chat"})
                .exit_code,
            0);
  EXPECT_EQ(config()["group_size"], -1);
}

TEST_F(QuantizeCommand, OptionsOfAnotherMethodAreRefused) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--method", "nf4", "--bits", "3"}, "--bits is of gptq and hqq, and the method is nf4"},
      {{"--method", "hqq", "--damp", "0.1"}, "--damp is of gptq, and the method is hqq"},
      {{"--method", "gptq", "--axis", "0"}, "--axis is of hqq, and the method is gptq"},
      {{"--method", "hqq", "--block-size", "64"}, "--block-size is of fp4 and nf4"},
      {{"--method", "int8", "--double-quant"}, "--double-quant is of nf4 and fp4; int8"},
      {{"--method", "gptq"}, "--data FILE"},
      {{"--method", "gptq", "--data", "rows.jsonl", "--act-order", "--no-reorder"},
       "exclude each other"},
      {{"--method", "gptq", "--data", "rows.jsonl", "--max-memory", "much"}, "--max-memory"},
      {{"--method", "q4"}, "--method must be nf4"}};
  for (const auto& [arguments, sentence] : cases) {
    const Finished done = quantize(arguments);
    EXPECT_EQ(done.exit_code, 2) << sentence;
    EXPECT_THAT(done.err, HasSubstr(sentence));
  }
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
}

}  // namespace
}  // namespace qlora::test
