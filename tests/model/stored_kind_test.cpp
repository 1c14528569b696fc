#include "model/stored_kind.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {
using test::TempDir;

// Of the tiny model's layers, those in `packed` are packed so.
class Files final : public WeightSource {
 public:
  explicit Files(const std::string& place, std::map<std::string, std::string> packed = {})
      : packed_(std::move(packed)) {
    architecture_ = test::tiny_model()->architecture();
    place_ = place;
  }
  bool has(const std::string&) const override { return false; }
  at::Tensor read(const std::string&, const std::vector<int64_t>&, at::ScalarType) override {
    return {};
  }
  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string&, int64_t, int64_t,
                                                   const quant::QuantizationOptions&,
                                                   at::Device) override {
    return nullptr;
  }
  at::ScalarType dtype() const override { return at::kFloat; }
  std::string packing(const std::string& module) const override {
    const auto found = packed_.find(module);
    return found == packed_.end() ? "" : found->second;
  }
  std::vector<std::string> unread() const override { return {}; }

 private:
  std::map<std::string, std::string> packed_;
};

StoredKind kind_of(const std::string& quantization_config) {
  const TempDir dir;
  dir.write("config.json", quantization_config.empty()
                               ? "{}"
                               : "{\"quantization_config\": " + quantization_config + "}");
  return stored_kind(Files(dir.path()));
}

TEST(StoredKind, OfADirectoryHasItsFormatWithBitsAndGroups) {
  const std::map<std::string, std::string> expected = {
      {R"({"quant_method": "gptq", "bits": 4, "group_size": 32})", "GPTQ, 4 bit, groups of 32"},
      {R"({"quant_method": "gptq", "bits": 8, "group_size": -1})", "GPTQ, 8 bit"},
      {R"({"quant_method": "awq", "w_bit": 4, "q_group_size": 128})", "AWQ, 4 bit, groups of 128"},
      {R"({"quant_method": "hqq", "quant_config": {"weight_quant_params":
           {"nbits": 3, "group_size": 64, "axis": 1}}})",
       "HQQ, 3 bit, groups of 64"},
      {R"({"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": 2,
           "nbits_per_codebook": 8})",
       "AQLM, 2x8"},
      {R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 64]})",
       "FP8, blocks of 128 x 64"},
      {R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4,
           "group_size": 128})",
       "auto-round, 4 bit, groups of 128"},
      {R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"})",
       "bitsandbytes nf4"},
      {R"({"quant_method": "mxfp4"})", "MXFP4"},
      {"", ""}};
  for (const auto& [config, text] : expected) EXPECT_EQ(kind_of(config).text, text) << config;
}

TEST(StoredKind, NamesTheMethodAlsoWhereOldToolsLeftItOut) {
  EXPECT_EQ(kind_of(R"({"quant_method": "hqq"})").method, "hqq");
  EXPECT_EQ(kind_of(R"({"bits": 4, "group_size": 128})").method, "gptq");
  EXPECT_EQ(kind_of("").method, "");
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("quantize_config.json", R"({"bits": 3, "group_size": 32})");
  const StoredKind kind = stored_kind(Files(dir.path()));
  EXPECT_EQ(kind.method, "gptq");
  EXPECT_EQ(kind.text, "GPTQ, 3 bit, groups of 32");
  const TempDir awq;  // AutoAWQ's own file
  awq.write("config.json", "{}");
  awq.write("quant_config.json",
            R"({"w_bit": 4, "q_group_size": 128, "zero_point": true, "version": "GEMM"})");
  EXPECT_EQ(stored_kind(Files(awq.path())).text, "AWQ, 4 bit, groups of 128");
  awq.write("quant_config.json", R"({"made": "by another program"})");
  EXPECT_EQ(stored_kind(Files(awq.path())).method, "");
  awq.write("quant_config.json", R"({"bits": 8, "made": "by another program"})");
  EXPECT_EQ(stored_kind(Files(awq.path())).method, "");
  awq.write("quant_config.json",
            R"({"bits": 4, "q_group_size": 64, "zero_point": true, "version": "GEMM"})");
  EXPECT_EQ(stored_kind(Files(awq.path())).text, "AWQ, 4 bit, groups of 64");
}

TEST(StoredKind, OfHqqsOwnFileIsSaidByTheFileAlone) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("qmodel.pt", "");
  const StoredKind kind = stored_kind(Files(dir.path()));
  EXPECT_EQ(kind.method, "hqq");
  EXPECT_EQ(kind.text, "HQQ");
  dir.write("model.safetensors", "");  // which is read in its place
  EXPECT_EQ(stored_kind(Files(dir.path())).method, "");
}

TEST(StoredKind, OfAGgufFileHasTheTypesOfItsMatrices) {
  const std::string layer = "model.layers.0.mlp.";
  const StoredKind kind = stored_kind(Files(
      "model.gguf",
      {{layer + "up_proj", "Q6_K"}, {layer + "gate_proj", "Q4_K"}, {layer + "down_proj", "Q6_K"}}));
  EXPECT_EQ(kind.method, "gguf");
  EXPECT_EQ(kind.text, "GGUF, Q4_K and Q6_K");
  EXPECT_EQ(stored_kind(Files("model.gguf")).method, "");
}

}  // namespace
}  // namespace qlora::model
