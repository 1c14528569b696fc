// Directories of bitsandbytes' layout that were cut, damaged or stored otherwise, and weights that
// cannot be quantized: what is refused, and that the message says where.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "recipes/exports/quantize_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kLayer = "model.layers.0.self_attn.q_proj";

class QuantizedDirectory : public ::testing::Test {
 protected:
  QuantizedDirectory() { test::write_tiny_directory(dir_ / "model"); }

  std::string weights(const char* name) const { return dir_ / name + "/model.safetensors"; }

  void quantize(const std::string& method, bool double_quant = true,
                const std::string& dtype = "bfloat16") {
    QuantizeOptions options;
    options.model = dir_ / "model";
    options.output = dir_ / "quantized";
    options.quantization.method = method;
    options.quantization.double_quant = double_quant;
    options.dtype = dtype;
    fs::remove_all(options.output);
    quantize_model(options);
  }

  std::string hash() const {
    const auto source = model::open_weights(dir_ / "quantized");
    return model::load_model(*source, {}, {}, at::kCPU, at::kBFloat16)->base_hash();
  }

  // What loading the quantized model says; "" if it loads.
  std::string message() const {
    try {
      hash();
      return "";
    } catch (const FormatError& error) {
      return error.what();
    }
  }

  void change(const char* directory, const std::string& name,
              const std::function<at::Tensor(const at::Tensor&)>& to) {
    quant::NamedTensors tensors = quant::read_tensors(weights(directory));
    for (auto& [key, tensor] : tensors)
      if (key == name) tensor = to(tensor);
    quant::write_tensors(weights(directory), tensors, {{"format", "pt"}});
  }

  void change_state(const std::function<void(json&)>& to) {
    change("quantized", kLayer + ".weight.quant_state.bitsandbytes__nf4", [&](const at::Tensor& t) {
      const auto* text = reinterpret_cast<const char*>(t.const_data_ptr<uint8_t>());
      json state = json::parse(text, text + t.numel());
      to(state);
      const std::string written = state.dump();
      at::Tensor bytes = at::empty({static_cast<int64_t>(written.size())}, at::kByte);
      std::memcpy(bytes.mutable_data_ptr(), written.data(), written.size());
      return bytes;
    });
  }

  void change_config(const std::function<void(json&)>& to) {
    const std::string path = dir_ / "quantized" + "/config.json";
    json config = json::parse(std::ifstream(path));
    to(config["quantization_config"]);
    std::ofstream(path) << config.dump();
  }

  const test::TempDir dir_;
};

at::Tensor stored_as(const at::Tensor& bytes, at::ScalarType dtype) {
  return bytes.flatten().view(dtype).view({-1, 1});
}

TEST_F(QuantizedDirectory, PackedBytesAreReadWhateverTypeTheyAreStoredAs) {
  for (const char* method : {"nf4", "fp4"})
    for (const bool double_quant : {true, false}) {
      quantize(method, double_quant);
      const std::string expected = hash();
      for (const auto& [dtype, name] :
           {std::pair(at::kBFloat16, "bfloat16"), std::pair(at::kHalf, "float16"),
            std::pair(at::kFloat, "float32")}) {
        quantize(method, double_quant);
        quant::NamedTensors tensors = quant::read_tensors(weights("quantized"));
        for (auto& [key, tensor] : tensors)
          if (key.ends_with("_proj.weight")) tensor = stored_as(tensor, dtype);
        quant::write_tensors(weights("quantized"), tensors, {{"format", "pt"}});
        change_config([name = name](json& q) { q["bnb_4bit_quant_storage"] = name; });
        EXPECT_EQ(hash(), expected) << method << " stored as " << name;
      }
    }
}

TEST_F(QuantizedDirectory, PackedBytesThatDoNotFillTheLayerAreRefusedInAnyType) {
  quantize("nf4");
  change("quantized", kLayer + ".weight", [](const at::Tensor& t) {
    return stored_as(t.flatten().narrow(0, 0, t.numel() - 4), at::kFloat);
  });
  EXPECT_THAT(message(),
              AllOf(HasSubstr(kLayer + ".weight"), HasSubstr("in 512 bytes, found 508")));
}

TEST_F(QuantizedDirectory, ACutFileIsRefused) {
  quantize("nf4");
  const auto size = fs::file_size(weights("quantized"));
  for (const auto keep : {size - 1, size / 2, uintmax_t{100}, uintmax_t{4}}) {
    quantize("nf4");
    fs::resize_file(weights("quantized"), keep);
    EXPECT_THAT(message(), HasSubstr("model.safetensors")) << keep;
  }
  fs::remove(weights("quantized"));
  EXPECT_THAT(message(), HasSubstr("must hold model.safetensors"));
}

TEST_F(QuantizedDirectory, AMissingShardIsNamed) {
  quantize("nf4");
  fs::remove(weights("quantized"));  // it would go before an index
  std::ofstream(dir_ / "quantized" + "/model.safetensors.index.json")
      << json{{"weight_map", {{kLayer + ".weight", "model-00002-of-00002.safetensors"}}}}.dump();
  try {
    hash();
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("model-00002-of-00002.safetensors"));
  }
}

TEST_F(QuantizedDirectory, AStateThatContradictsTheModelIsRefusedByItsKey) {
  const std::pair<const char*, json> wrong[] = {
      {"shape", {32, 33}},       {"shape", {1, 32, 32}},      {"blocksize", 48},
      {"blocksize", 8192},       {"quant_type", "fp4"},       {"dtype", "int4"},
      {"nested_blocksize", 100}, {"nested_dtype", "float16"}, {"nested_offset", "much"}};
  for (const auto& [key, value] : wrong) {
    quantize("nf4");
    change_state([&, key = key, value = value](json& state) { state[key] = value; });
    EXPECT_THAT(message(), AllOf(HasSubstr("quant_state"), HasSubstr(key))) << value;
  }
  for (const char* key : {"shape", "blocksize", "dtype", "quant_type", "nested_offset"}) {
    quantize("nf4");
    change_state([key](json& state) { state.erase(key); });
    EXPECT_THAT(message(), AllOf(HasSubstr("quant_state"), HasSubstr(key)));
  }
}

TEST_F(QuantizedDirectory, AnotherBlockSizeThanTheScalesAreForIsRefused) {
  quantize("nf4", false);
  change_state([](json& state) { state["blocksize"] = 128; });
  EXPECT_THAT(message(), HasSubstr(kLayer + ".weight.absmax must hold 8 elements"));
}

TEST_F(QuantizedDirectory, DamagedRowScalesOfInt8AreNamed) {
  const auto scales = [this](const std::function<at::Tensor(const at::Tensor&)>& to) {
    quantize("int8");
    change("quantized", kLayer + ".SCB", to);
    return message();
  };
  EXPECT_THAT(scales([](const at::Tensor& t) { return t.narrow(0, 1, t.numel() - 1); }),
              HasSubstr(kLayer + ".SCB"));
  EXPECT_THAT(scales([](const at::Tensor& t) { return t.to(at::kHalf); }),
              HasSubstr(kLayer + ".SCB"));
  EXPECT_THAT(scales([](const at::Tensor& t) { return at::full_like(t, NAN); }),
              AllOf(HasSubstr(kLayer + ".SCB"), HasSubstr("NaN")));
  EXPECT_THAT(scales([](const at::Tensor& t) { return t.neg(); }),
              AllOf(HasSubstr(kLayer + ".SCB"), HasSubstr("below 0")));
  quantize("int8");
  change("quantized", kLayer + ".weight_format", [](const at::Tensor& t) { return t + 2; });
  EXPECT_THAT(message(), HasSubstr("weight_format is not 0"));
  quantize("int8");
  change("quantized", kLayer + ".weight", [](const at::Tensor& t) { return t.to(at::kByte); });
  EXPECT_THAT(message(), HasSubstr(kLayer + ".weight must be I8 [32, 32], found U8"));
}

TEST_F(QuantizedDirectory, AConfigThatContradictsItselfIsRefused) {
  quantize("nf4");
  change_config([](json& q) { q["load_in_8bit"] = true; });
  EXPECT_THAT(message(), HasSubstr("exactly one of load_in_4bit and load_in_8bit"));
  quantize("nf4");
  change_config([](json& q) { q["bnb_4bit_quant_type"] = "int4"; });
  EXPECT_THAT(message(), AllOf(HasSubstr("bnb_4bit_quant_type"), HasSubstr("int4")));
}

TEST_F(QuantizedDirectory, AWeightThatIsNoNumberIsNamedAndNothingIsLeft) {
  for (const double bad : {std::nan(""), HUGE_VAL}) {
    change("model", kLayer + ".weight", [bad](const at::Tensor& t) {
      at::Tensor changed = t.clone();
      changed[3][5] = bad;
      return changed;
    });
    try {
      quantize("nf4");
      FAIL() << "accepted";
    } catch (const FormatError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(kLayer + ".weight"), HasSubstr("element 101")));
    }
    EXPECT_FALSE(fs::exists(dir_ / "quantized"));
  }
}

TEST_F(QuantizedDirectory, AWeightBeyondFloat16IsNamedWithItsPlace) {
  change("model", kLayer + ".weight", [](const at::Tensor& t) {
    at::Tensor changed = t.clone();
    changed[3][5] = 70000.0;
    return changed;
  });
  const auto said = [&](const char* method, const char* dtype) -> std::string {
    try {
      quantize(method, true, dtype);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(said("int8", "bfloat16"),
              AllOf(HasSubstr(kLayer + ".weight"), HasSubstr("row 3, column 5")));
  EXPECT_THAT(said("nf4", "float16"),
              AllOf(HasSubstr(kLayer + ".weight"), HasSubstr("70144 (element 101)"),
                    HasSubstr("model.dtype: bfloat16")));
  EXPECT_EQ(said("nf4", "bfloat16"), "");
}

TEST_F(QuantizedDirectory, UnusableOptionsAreRefusedBeforeAnythingIsRead) {
  QuantizeOptions options;
  options.model = dir_ / "missing";
  options.output = dir_ / "quantized";
  options.quantization.method = "int8";
  options.quantization.block_size = 128;
  EXPECT_THROW(quantize_model(options), ConfigError);
  options.quantization = {};
  options.quantization.method = "nf4";
  options.quantization.threshold = 5.0;
  EXPECT_THROW(quantize_model(options), ConfigError);
  options.quantization = {};  // as_stored
  EXPECT_THROW(quantize_model(options), ConfigError);
  EXPECT_FALSE(fs::exists(dir_ / "quantized"));
}

}  // namespace
}  // namespace qlora::recipes
