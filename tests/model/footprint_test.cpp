#include "model/footprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "base/error.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "model/load.h"
#include "quant/frozen_size.h"
#include "quant/make_frozen_weight.h"
#include "quant/tensor_file.h"
#include "recipes/quantize_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::model {
namespace {

const FootprintRow& row_of(const std::vector<FootprintRow>& rows, const std::string& kind) {
  for (const FootprintRow& row : rows)
    if (row.kind == kind) return row;
  throw Error("no row " + kind);
}

int64_t total_bytes(const std::vector<FootprintRow>& rows) {
  int64_t bytes = 0;
  for (const FootprintRow& row : rows) bytes += row.bytes;
  return bytes;
}

quant::QuantizationOptions options_of(const std::string& method, bool double_quant = true) {
  quant::QuantizationOptions options;
  options.method = method;
  options.double_quant = double_quant;
  return options;
}

TEST(FrozenSize, IsWhatTheWeightTakes) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{{48, 32}, {7, 9}, {3, 300, 200}})
    for (const char* method : {"none", "as_stored", "nf4", "fp4", "int8", "int8_weight_only"})
      for (const bool double_quant : {true, false})
        for (const char* module : {"q_proj", "lm_head"}) {
          const auto options = options_of(method, double_quant);
          const auto made =
              quant::make_frozen_weight(at::randn(shape).to(at::kHalf), options, module);
          const auto told =
              quant::frozen_size(quant::WeightShape::of(shape, "test"), at::kHalf, options, module);
          EXPECT_EQ(told.bytes, made->bytes()) << method;
          EXPECT_EQ(told.format, made->format()) << method;
        }
}

class Footprint : public ::testing::Test {
 protected:
  Footprint() { test::write_tiny_directory(dir_ / "model"); }
  std::vector<io::TensorView> tensors(const char* name) const {
    return io::read_safetensors_directory(dir_ / name).tensors;
  }
  const test::TempDir dir_;
};

// Hidden 32, inner 48, 4 heads over 2 key-value heads of 8, 258 tokens, 2 layers, tied, bf16.
TEST_F(Footprint, ADirectoryIsCountedByKindAndFormat) {
  const auto rows = stored_footprint(tensors("model"));
  EXPECT_EQ(row_of(rows, "embedding").parameters, 258 * 32);
  EXPECT_EQ(row_of(rows, "embedding").bytes, 2 * 258 * 32);
  EXPECT_EQ(row_of(rows, "q_proj").count, 2);
  EXPECT_EQ(row_of(rows, "q_proj").parameters, 2 * 32 * 32);
  EXPECT_EQ(row_of(rows, "k_proj").parameters, 2 * 16 * 32);
  EXPECT_EQ(row_of(rows, "down_proj").parameters, 2 * 48 * 32);
  EXPECT_EQ(row_of(rows, "norms").count, 5);
  for (const FootprintRow& row : rows) EXPECT_EQ(row.format, "bfloat16") << row.kind;
  EXPECT_EQ(rows.front().kind, "embedding");
  EXPECT_THROW(row_of(rows, "other"), Error);
  EXPECT_THROW(row_of(rows, "head"), Error);
}

TEST_F(Footprint, AGgufFileHasTheSameKinds) {
  test::write_tiny_gguf(dir_ / "model.gguf");
  const io::GgufFile file(dir_ / "model.gguf");
  const auto gguf = stored_footprint(file.tensors()),
             directory = stored_footprint(tensors("model"));
  ASSERT_EQ(gguf.size(), directory.size());
  for (size_t i = 0; i < gguf.size(); ++i) {
    EXPECT_EQ(gguf[i].kind, directory[i].kind);
    EXPECT_EQ(gguf[i].count, directory[i].count);
    EXPECT_EQ(gguf[i].parameters, directory[i].parameters);
    EXPECT_EQ(gguf[i].format, "float32");
  }
}

TEST_F(Footprint, APackedLayerIsOneWeightWithAllItsParts) {
  for (const auto& [method, double_quant, format] :
       {std::tuple("nf4", true, "nf4+dq"), std::tuple("fp4", false, "fp4"),
        std::tuple("int8", true, "int8")}) {
    recipes::QuantizeOptions options;
    options.model = dir_ / "model";
    options.output = dir_ / format;
    options.quantization = options_of(method, double_quant);
    recipes::quantize_model(options);
    const auto views = tensors(format);
    const auto rows = stored_footprint(views);
    const auto& up = row_of(rows, "up_proj");
    EXPECT_EQ(up.format, format);
    EXPECT_EQ(up.count, 2);
    EXPECT_EQ(up.parameters, 2 * 48 * 32);
    EXPECT_EQ(row_of(rows, "norms").format, "bfloat16");
    int64_t in_files = 0;
    for (const auto& view : views) in_files += static_cast<int64_t>(view.bytes.size());
    EXPECT_EQ(total_bytes(rows), in_files) << format;
  }
}

TEST_F(Footprint, WhatARunKeepsIsWhatTheModelTakes) {
  for (const char* method : {"none", "nf4", "int8"}) {
    const auto quantization = options_of(method);
    const auto rows = kept_footprint(tensors("model"), quantization, at::kBFloat16, true);
    const auto source = open_weights(dir_ / "model");
    const auto model = load_model(*source, {}, quantization, at::kCPU, at::kBFloat16);
    int64_t linear = 0;
    for (const lora::LinearGroup* group : model->groups())
      for (const lora::LoraLinear& layer : group->layers()) linear += layer.base->bytes();
    int64_t counted = 0;
    for (const FootprintRow& row : rows)
      if (row.kind.ends_with("_proj")) counted += row.bytes;
    EXPECT_EQ(counted, linear) << method;
    EXPECT_EQ(row_of(rows, "norms").format, "float32");
    EXPECT_EQ(row_of(rows, "norms").bytes, 4 * 5 * 32);
    EXPECT_EQ(row_of(rows, "embedding").bytes,
              static_cast<int64_t>(model->embedding.weight.nbytes()));
  }
}

TEST_F(Footprint, ADamagedStateOfAPackedLayerIsNamed) {
  const std::string state = "a.q_proj.weight.quant_state.bitsandbytes__nf4";
  quant::write_tensors(dir_ / "damaged.safetensors", {{state, at::full({3}, 123, at::kByte)}});
  try {
    stored_footprint(io::read_safetensors(dir_ / "damaged.safetensors").tensors);
    FAIL() << "accepted";
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr(state));
  }
}

}  // namespace
}  // namespace qlora::model
