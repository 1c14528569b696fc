#include "recipes/exports/quantize_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/safetensors.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

class Quantized : public ::testing::Test {
 protected:
  Quantized() { test::write_tiny_directory(dir_ / "model"); }

  std::string in(const char* name) const { return dir_ / name; }

  QuantizationReport quantize(const std::string& method, bool double_quant = true,
                              bool report = false) {
    QuantizeOptions options;
    options.model = in("model");
    options.output = in("quantized");
    options.quantization.method = method;
    options.quantization.double_quant = double_quant;
    options.report = report;
    return quantize_model(options);
  }

  static std::string hash(const std::string& path, const quant::QuantizationOptions& quantization) {
    const auto source = model::open_weights(path);
    return model::load_model(*source, {}, quantization, at::kCPU, at::kBFloat16)->base_hash();
  }

  // Changes one tensor of the quantized model and gives what loading it says.
  std::string message_after(const std::function<void(quant::NamedTensors&)>& damage) {
    const std::string path = in("quantized") + "/model.safetensors";
    quant::NamedTensors tensors = quant::read_tensors(path);
    damage(tensors);
    quant::write_tensors(path, tensors, {{"format", "pt"}});
    try {
      hash(in("quantized"), {});
      return "";
    } catch (const FormatError& error) {
      return error.what();
    }
  }

  const test::TempDir dir_;
};

TEST_F(Quantized, ReadingTheDirectoryIsQuantizingTheSourceByteForByte) {
  for (const char* method : {"nf4", "fp4", "int8"})
    for (const bool double_quant : {true, false}) {
      fs::remove_all(in("quantized"));
      quantize(method, double_quant);
      quant::QuantizationOptions options;
      options.method = method;
      options.double_quant = double_quant;
      EXPECT_EQ(hash(in("quantized"), {}), hash(in("model"), options)) << method;
      EXPECT_EQ(hash(in("quantized"), options), hash(in("model"), options)) << method;
    }
}

TEST_F(Quantized, TheReportNamesEachLayersErrorAndTheDistance) {
  const QuantizationReport report = quantize("nf4", true, true);
  ASSERT_EQ(report.layers.size(), 14u);
  for (const LayerError& layer : report.layers) {
    EXPECT_GT(layer.relative, 0.02) << layer.module;
    EXPECT_LT(layer.relative, 0.2) << layer.module;
    EXPECT_GT(layer.largest, 0.0);
  }
  ASSERT_TRUE(report.agreement.has_value());
  EXPECT_GT(report.agreement->kl_mean, 0.0);
  EXPECT_TRUE(fs::exists(in("quantized") + "/quantization_report.json"));
}

TEST_F(Quantized, DequantizingGivesTheValuesTheQuantizedModelStandsFor) {
  quantize("int8");
  dequantize_model(in("quantized"), in("back"), "float32");
  const auto packed = model::open_weights(in("quantized"));
  const auto dense = model::open_weights(in("back"));
  model::ModelOptions options;
  options.dtype = "float32";
  const auto a = model::load_model(*packed, options, {}, at::kCPU, at::kFloat);
  const auto b = model::load_model(*dense, options, {}, at::kCPU, at::kFloat);
  const auto& x = a->layers[1].branches[1].in.layers()[1].base;
  const auto& y = b->layers[1].branches[1].in.layers()[1].base;
  at::Tensor left = at::empty({48, 32}, at::kFloat), right = at::empty({48, 32}, at::kFloat);
  x->dequantize_rows(0, 0, 48, left);
  y->dequantize_rows(0, 0, 48, right);
  EXPECT_TRUE(at::equal(left, right));
  std::ifstream config(in("back") + "/config.json");
  EXPECT_FALSE(nlohmann::json::parse(config).contains("quantization_config"));
}

TEST_F(Quantized, ARecipeThatAsksForAnotherQuantizationIsRefused) {
  quantize("nf4");
  quant::QuantizationOptions options;
  options.method = "int8";
  EXPECT_THROW(hash(in("quantized"), options), ConfigError);
  options.method = "nf4";
  options.double_quant = false;
  EXPECT_THROW(hash(in("quantized"), options), ConfigError);
  options.method = "none";
  EXPECT_THROW(hash(in("quantized"), options), ConfigError);
}

TEST_F(Quantized, DamagedPartsAreNamed) {
  quantize("nf4");
  const std::string layer = "model.layers.0.self_attn.q_proj.weight";
  const auto keep = quant::read_tensors(in("quantized") + "/model.safetensors");
  const auto restore = [&] {
    quant::write_tensors(in("quantized") + "/model.safetensors", keep, {{"format", "pt"}});
  };
  const auto change = [&](const std::string& name, const at::Tensor& value) {
    const std::string message = message_after([&](quant::NamedTensors& tensors) {
      for (auto& [key, tensor] : tensors)
        if (key == name) tensor = value;
    });
    EXPECT_NE(message.find(name), std::string::npos) << name << ": " << message;
    restore();
  };
  change(layer, at::zeros({7, 1}, at::kByte));
  change(layer + ".absmax", at::zeros({3}, at::kByte));
  change(layer + ".quant_map", at::zeros({16}, at::kFloat));
  change(layer + ".nested_absmax", at::full({1}, NAN));
  change(layer + ".quant_state.bitsandbytes__nf4", at::zeros({5}, at::kByte));
  const std::string missing = message_after([&](quant::NamedTensors& tensors) {
    std::erase_if(tensors, [&](const auto& named) { return named.first == layer + ".absmax"; });
  });
  EXPECT_NE(missing.find(layer + ".absmax"), std::string::npos) << missing;
  restore();
  const std::string stray = message_after([&](quant::NamedTensors& tensors) {
    tensors.emplace_back(layer + ".surprise", at::zeros({1}));
  });
  EXPECT_NE(stray.find("surprise"), std::string::npos) << stray;
}

TEST_F(Quantized, AMethodThatIsNotReadIsRefusedByName) {
  quantize("nf4");
  const std::string path = in("quantized") + "/config.json";
  nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
  config["quantization_config"] = {{"quant_method", "quanto"}, {"bits", 4}};
  std::ofstream(path) << config.dump();
  try {
    hash(in("quantized"), {});
    FAIL() << "accepted";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("quanto"), std::string::npos);
  }
}

}  // namespace
}  // namespace qlora::recipes
