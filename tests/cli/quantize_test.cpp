#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "quant/tensor_file.h"
#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

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

  std::vector<std::string> comparison(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"quantize", "--model", dir_ / "model", "--compare"});
    return arguments;
  }
  Finished compare(const std::vector<std::string>& arguments) const {
    return run_qlora(dir_, comparison(arguments));
  }

  nlohmann::json config() const {
    return nlohmann::json::parse(read_file(dir_ / "out/config.json"))["quantization_config"];
  }

  const TempDir dir_;
};

TEST_F(QuantizeCommand, GptqIsCalibratedOnRowsOfAnyFormat) {
  const Finished done =
      quantize({"--method", "gptq", "--data", dir_ / "rows.jsonl", "--format", "chat",
                "--group-size", "16", "--act-order", "--bits", "3", "--no-true-sequential"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr("read back and equal"));
  EXPECT_EQ(config()["bits"], 3);
  EXPECT_EQ(config()["group_size"], 16);
  EXPECT_EQ(config()["desc_act"], true);
  EXPECT_EQ(config()["true_sequential"], false);
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

TEST_F(QuantizeCommand, FormatsThatAreOnlyReadAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"aqlm",
       "--method aqlm: AQLM is read, not written: its codebooks cannot hold a merged adapter; "
       "qlora export --format merged writes 16 bit"},
      {"awq", "AWQ is read, not written"},
      {"eetq", "EETQ is read, not written"},
      {"fp8", "FP8 is read, not written"},
      {"mxfp4", "MXFP4 is read, not written"},
      {"compressed-tensors", "compressed-tensors is read, not written"},
      {"torchao", "torchao is read, not written"}};
  for (const auto& [method, sentence] : cases) {
    const Finished done = quantize({"--method", method});
    EXPECT_EQ(done.exit_code, 2) << method;
    EXPECT_THAT(done.err, HasSubstr(sentence));
  }
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
}

TEST_F(QuantizeCommand, AModelMergedIntoAFormatThatIsOnlyReadIsIn16Bit) {
  quant::NamedTensors tensors = quant::read_tensors(dir_ / "model/model.safetensors"), packed;
  for (const auto& [name, tensor] : tensors) {
    if (!name.ends_with("_proj.weight")) {
      packed.emplace_back(name, tensor);
      continue;
    }
    const at::Tensor codes = (tensor.to(at::kFloat) * 64).clamp(-448, 448);
    packed.emplace_back(name, codes.to(at::kFloat8_e4m3fn));
    packed.emplace_back(name + "_scale_inv", at::full({1}, 1.0 / 64));
  }
  nlohmann::json config = nlohmann::json::parse(read_file(dir_ / "model/config.json"));
  config["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e4m3"}};
  std::filesystem::copy(dir_ / "model", dir_ / "fp8");
  dir_.write("fp8/config.json", config.dump());
  quant::write_tensors(dir_ / "fp8/model.safetensors", packed);
  const auto merged = [&](const std::string& model) {
    const Finished done = run_qlora(dir_, {"export", "--model", dir_ / model, "--format", "merged",
                                           "--output", dir_ / (model + "-merged")});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    return done.err;
  };
  EXPECT_THAT(merged("fp8"), HasSubstr("the base is FP8, which is read, not written: the merged "
                                       "directory is in bfloat16"));
  EXPECT_FALSE(nlohmann::json::parse(read_file(dir_ / "fp8-merged/config.json"))
                   .contains("quantization_config"));
  EXPECT_THAT(merged("model"), Not(HasSubstr("not written")));
}

TEST_F(QuantizeCommand, MethodsAreComparedInATableAndNoModelIsWritten) {
  const Finished done =
      compare({"nf4,int8,gptq:2", "--data", dir_ / "rows.jsonl", "--held-out", dir_ / "rows.jsonl",
               "--format", "chat", "--report-file", dir_ / "table.json", "--group-size", "16"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("bits a weight"), HasSubstr("\nbfloat16"),
                              HasSubstr("\ngptq:2"), HasSubstr("tokens of rows.jsonl")));
  EXPECT_THAT(done.err, HasSubstr("gptq:2 (3 of 3)"));
  const auto table = nlohmann::json::parse(read_file(dir_ / "table.json"));
  ASSERT_EQ(table["methods"].size(), 4u);
  EXPECT_EQ(table["methods"][3]["method"], "gptq:2");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
}

TEST_F(QuantizeCommand, ComparingAndWritingExcludeEachOther) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"nf4,gptq:4"}, "gptq:4 must be calibrated"},
      {{"nf4", "--output", "out"}, "--output means nothing"},
      {{"nf4", "--method", "nf4"}, "--method means nothing"},
      {{"nf4", "--report"}, "--report means nothing"},
      {{"nf4,hqq:3", "--damp", "0.1"}, "--damp is of gptq, and the methods are nf4, hqq"},
      {{"nf4,hqq:3", "--format", "chat"}, "--format is of gptq"},
      {{"nf4,awq"}, "--compare awq: AWQ is read, not written"},
      {{"nf4", "--report-file", "table.csv"}, ".json or .md"},
      {{"nf4", "--report-file", "missing/table.md"}, "there is no folder"},
      {{"nf4", "--report-file", dir_ / "model/config.json"}, "config.json exists; name another"}};
  for (const auto& [arguments, sentence] : cases) {
    const Finished done = compare(arguments);
    EXPECT_EQ(done.exit_code, 2) << sentence;
    EXPECT_THAT(done.err, HasSubstr(sentence));
  }
  const Finished nowhere = run_qlora(dir_, {"quantize", "--model", dir_ / "model"});
  EXPECT_EQ(nowhere.exit_code, 2);
  EXPECT_THAT(nowhere.err, AllOf(HasSubstr("--output"), HasSubstr("--compare")));
  const Finished held_out = quantize({"--held-out", dir_ / "rows.jsonl"});
  EXPECT_EQ(held_out.exit_code, 2);
  EXPECT_THAT(held_out.err, HasSubstr("--held-out is of --compare"));
}

TEST_F(QuantizeCommand, CtrlCBetweenTwoMethodsLeavesNoTable) {
  write_tiny_rows(dir_ / "held_out.jsonl", 700);  // about half a second a method
  ChildProcess process(
      QLORA_PROGRAM,
      comparison({"nf4,int8,fp4,hqq:4", "--held-out", dir_ / "held_out.jsonl", "--format", "chat",
                  "--report-file", dir_ / "table.md", "--threads", "1"}),
      dir_.path());
  EXPECT_TRUE(process.wait_until(
      [&] { return read_file(dir_ / "stderr.txt").find("nf4 (1 of 4)") != std::string::npos; }));
  process.send(SIGINT);
  const Finished stopped = process.wait();
  EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_EQ(stopped.out, "");
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path()))
    EXPECT_EQ(entry.path().string().find("table"), std::string::npos) << entry.path();
}

}  // namespace
}  // namespace qlora::test
