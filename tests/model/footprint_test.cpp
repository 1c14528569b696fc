#include "model/footprint.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "io/gguf.h"
#include "io/weight_directory.h"
#include "quant/frozen_size.h"
#include "quant/make_frozen_weight.h"
#include "recipes/exports/quantize_model.h"
#include "tests/support/footprint_rows.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::model {
namespace {
using test::bytes_of;
using test::in_a_file;
using test::kinds_of;
using test::loaded;
using test::options_of;
using test::row_of;
using testing::ElementsAre;

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

TEST(FrozenSize, TellsScalesFromCodes) {
  const auto shape = quant::WeightShape::matrix(48, 32);
  const auto codes = [&shape](const std::string& method, const std::string& module) {
    const auto size = quant::frozen_size(shape, at::kHalf, options_of(method), module);
    return size.bytes - size.scale_bytes;
  };
  EXPECT_EQ(codes("nf4", "q_proj"), 48 * 32 / 2);
  EXPECT_EQ(codes("fp4", "q_proj"), 48 * 32 / 2);
  EXPECT_EQ(codes("int8", "q_proj"), 48 * 32);
  EXPECT_EQ(codes("int8_weight_only", "q_proj"), 48 * 32);
  EXPECT_EQ(codes("nf4", "lm_head"), 2 * 48 * 32);  // not quantized
}

class Footprint : public ::testing::Test {
 protected:
  Footprint() { test::write_tiny_directory(dir_ / "model"); }
  std::vector<io::TensorView> tensors(const std::string& name) const {
    return io::read_weight_directory(dir_ / name).tensors;
  }
  std::vector<FootprintRow> stored(const std::string& name) const {
    return stored_footprint(tensors(name), &open_weights(dir_ / name)->architecture());
  }
  const test::TempDir dir_;
};

// Hidden 32, inner 48, 4 heads over 2 key-value heads of 8, 258 tokens, 2 layers, tied, bf16.
TEST_F(Footprint, ADirectoryIsCountedByKindAndFormat) {
  const auto rows = stored("model");
  EXPECT_EQ(row_of(rows, "embedding").parameters, 258 * 32);
  EXPECT_EQ(row_of(rows, "embedding").bytes, 2 * 258 * 32);
  EXPECT_EQ(row_of(rows, "q_proj").count, 2);
  EXPECT_EQ(row_of(rows, "q_proj").parameters, 2 * 32 * 32);
  EXPECT_EQ(row_of(rows, "k_proj").parameters, 2 * 16 * 32);
  EXPECT_EQ(row_of(rows, "down_proj").parameters, 2 * 48 * 32);
  EXPECT_EQ(row_of(rows, "norms").count, 5);
  for (const FootprintRow& row : rows) EXPECT_EQ(row.format, "bfloat16") << row.kind;
  EXPECT_THAT(kinds_of(rows), ElementsAre("embedding", "q_proj", "k_proj", "v_proj", "o_proj",
                                          "gate_proj", "up_proj", "down_proj", "norms"));
}

TEST_F(Footprint, AGgufFileHasTheSameKinds) {
  test::write_tiny_gguf(dir_ / "model.gguf");
  const auto source = open_weights(dir_ / "model.gguf");
  const io::GgufFile file(dir_ / "model.gguf");
  const auto gguf = stored_footprint(file.tensors(), &source->architecture()),
             directory = stored("model");
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
    const auto rows = stored(format);
    const auto& up = row_of(rows, "up_proj");
    EXPECT_EQ(up.format, format);
    EXPECT_EQ(up.count, 2);
    EXPECT_EQ(up.parameters, 2 * 48 * 32);
    EXPECT_EQ(row_of(rows, "norms").format, "bfloat16");
    EXPECT_EQ(test::total_bytes(rows), test::total_bytes(tensors(format))) << format;
  }
}

TEST_F(Footprint, ExpertsInMxfp4StayThereUnlessTheyAreQuantizedAnew) {
  test::write_mxfp4_directory(dir_ / "experts");
  for (const auto& [method, format] : {std::pair("as_stored", "mxfp4"),
                                       std::pair("none", "bfloat16"), std::pair("nf4", "nf4+dq")}) {
    const auto source = open_weights(dir_ / "experts");
    const auto rows = kept_footprint(*source, tensors("experts"), {}, options_of(method));
    EXPECT_EQ(row_of(rows, "gate_up_proj").format, format);
    EXPECT_EQ(bytes_of(rows), bytes_of(*loaded(*source, options_of(method)))) << method;
  }
}

TEST_F(Footprint, WhatARunKeepsIsWhatTheModelTakes) {
  for (const char* method : {"none", "nf4", "int8"})
    for (const char* upcast : {"none", "all"}) {
      const auto source = open_weights(dir_ / "model");
      ModelOptions options;
      options.upcast = upcast;
      const auto rows = kept_footprint(*source, tensors("model"), options, options_of(method));
      EXPECT_EQ(bytes_of(rows), bytes_of(*loaded(*source, options_of(method), options)))
          << method << ", upcast " << upcast;
      EXPECT_EQ(row_of(rows, "norms").format, "float32");
      EXPECT_EQ(row_of(rows, "norms").bytes, 4 * 5 * 32);
    }
}

TEST_F(Footprint, PackedLayersAreKeptWithoutTheTablesOfTheirFiles) {
  for (const auto& [method, double_quant, kept, format] :
       {std::tuple("nf4", true, "as_stored", "nf4+dq"), std::tuple("fp4", false, "fp4", "fp4"),
        std::tuple("int8", true, "as_stored", "int8"),
        std::tuple("int8", true, "int8_weight_only", "int8 (W8A16)")}) {
    recipes::QuantizeOptions options;
    options.model = dir_ / "model";
    options.output = dir_ / format;
    options.quantization = options_of(method, double_quant);
    recipes::quantize_model(options);
    const auto source = open_weights(dir_ / format);
    const auto quantization = options_of(kept, double_quant);
    const auto rows = kept_footprint(*source, tensors(format), {}, quantization);
    EXPECT_EQ(bytes_of(rows), bytes_of(*loaded(*source, quantization))) << format;
    EXPECT_EQ(row_of(rows, "up_proj").format, format);
    EXPECT_EQ(row_of(rows, "up_proj").parameters, 2 * 48 * 32);
  }
}

// Rows of 32 numbers are a block each; those of down_proj, 48 long, stay in float32.
void write_gguf_in_blocks(const std::string& path) {
  test::write_tiny_gguf(path + ".plain.gguf");
  const io::GgufFile plain(path + ".plain.gguf");
  std::vector<io::TensorView> headers = plain.tensors();
  for (io::TensorView& header : headers)
    if (header.name.starts_with("blk.") && header.shape.size() == 2 && header.shape[1] == 32)
      header.dtype = io::DType::kQ8_0;
  const std::vector<std::pair<std::string, io::GgufValue>> metadata(plain.metadata().begin(),
                                                                    plain.metadata().end());
  io::GgufWriter writer(path, metadata, headers);
  for (const io::TensorView& header : headers) {
    const int64_t blocks = header.num_elements() / io::elements_per_block(header.dtype);
    writer.write(header.name, std::vector<std::byte>(
                                  static_cast<size_t>(blocks * io::bytes_per_block(header.dtype))));
  }
  writer.finish();
}

TEST_F(Footprint, BlocksOfAGgufFileAreKeptWhereTheyStayAsStored) {
  write_gguf_in_blocks(dir_ / "blocks.gguf");
  const io::GgufFile file(dir_ / "blocks.gguf");
  auto skipping = options_of("nf4");
  skipping.skip_modules = {"self_attn.q_proj"};
  for (const auto& [quantization, q_proj, down_proj] :
       {std::tuple(options_of("as_stored"), "Q8_0", "float32"),
        std::tuple(options_of("nf4"), "nf4+dq", "nf4+dq"),
        std::tuple(skipping, "float32", "nf4+dq")}) {
    const auto source = open_weights(dir_ / "blocks.gguf");
    const auto rows = kept_footprint(*source, file.tensors(), {}, quantization);
    EXPECT_EQ(row_of(rows, "q_proj").format, q_proj);
    EXPECT_EQ(row_of(rows, "down_proj").format, down_proj);
    EXPECT_EQ(bytes_of(rows), bytes_of(*loaded(*source, quantization))) << q_proj;
  }
}

TEST_F(Footprint, ExpertsInMxfp4OfAGgufFileAreKeptWhereTheyStayAsStored) {
  test::write_mxfp4_directory(dir_ / "experts");
  test::write_mxfp4_gguf(dir_ / "experts", dir_ / "experts.gguf");
  const io::GgufFile file(dir_ / "experts.gguf");
  const auto stored = stored_footprint(file.tensors(), &open_weights(file.path())->architecture());
  EXPECT_EQ(row_of(stored, "gate_up_proj").format, "MXFP4");
  EXPECT_EQ(row_of(stored, "gate_up_proj").bytes, 2 * 4 * 64 * 64 / 32 * 17);
  EXPECT_EQ(test::total_bytes(stored), test::total_bytes(file.tensors()));
  for (const auto& [method, format] : {std::pair("as_stored", "MXFP4"),
                                       std::pair("none", "bfloat16"), std::pair("nf4", "nf4+dq")}) {
    const auto source = open_weights(dir_ / "experts.gguf");
    const auto rows = kept_footprint(*source, file.tensors(), {}, options_of(method));
    EXPECT_EQ(row_of(rows, "gate_up_proj").format, format);
    EXPECT_EQ(bytes_of(rows), bytes_of(*loaded(*source, options_of(method)))) << method;
  }
}

TEST_F(Footprint, TensorsAreFoundUnderOtherPrefixes) {
  auto named_otherwise = tensors("model");
  for (io::TensorView& tensor : named_otherwise)
    tensor.name = tensor.name.substr(std::string("model.").size());
  const auto source = open_weights(dir_ / "model");
  const auto usual = stored("model");
  const auto rows = stored_footprint(named_otherwise, &source->architecture());
  EXPECT_EQ(kinds_of(rows), kinds_of(usual));
  EXPECT_EQ(bytes_of(rows), bytes_of(usual));
}

TEST_F(Footprint, WhatIsNoPartOfTheModelIsOtherAndIsNotKept) {
  auto more = tensors("model");
  for (io::TensorView& tensor : in_a_file({{"vision_tower.layers.0.q_proj.weight", {64, 32}},
                                           {"vision_tower.layers.0.q_proj.bias", {64}},
                                           {"model.layers.0.self_attn.rotary_emb.inv_freq", {4}}}))
    more.push_back(tensor);
  const auto source = open_weights(dir_ / "model");
  const auto rows = stored_footprint(more, &source->architecture());
  EXPECT_EQ(rows.back().kind, "other");
  EXPECT_EQ(rows.back().count, 3);
  EXPECT_EQ(rows.back().bytes, 2 * (64 * 32 + 64 + 4));
  EXPECT_EQ(row_of(rows, "q_proj").count, 2);
  EXPECT_EQ(bytes_of(kept_footprint(*source, more, {}, options_of("nf4"))),
            bytes_of(kept_footprint(*source, tensors("model"), {}, options_of("nf4"))));
}

}  // namespace
}  // namespace qlora::model
