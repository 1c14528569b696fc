#include "tests/support/stored_layer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::test {

io::TensorFile stored_file(const quant::NamedTensors& tensors,
                           const std::map<std::string, std::string>& metadata) {
  const TempDir dir;
  const std::string path = dir / "model.safetensors";
  quant::write_tensors(path, tensors, metadata);
  return io::read_safetensors(path);
}

void StoredLayer::add(const std::string& part, const at::Tensor& tensor) {
  tensors.emplace_back(module + "." + part, tensor);
}

void StoredLayer::replace(const std::string& part, const at::Tensor& tensor) {
  remove(part);
  add(part, tensor);
}

void StoredLayer::remove(const std::string& part) {
  std::erase_if(tensors, [&](const auto& named) { return named.first == module + "." + part; });
}

at::Tensor StoredLayer::part(const std::string& part) const {
  for (const auto& [name, tensor] : tensors)
    if (name == module + "." + part) return tensor;
  return {};
}

StoredLayer layer_of(const quant::NamedTensors& parts, const std::string& config,
                     const at::Tensor& expected) {
  StoredLayer layer{nlohmann::json::parse(config), {}, expected, "layer"};
  for (const auto& [name, tensor] : parts) layer.add(name, tensor);
  return layer;
}

LayerRead read_layer(const StoredLayer& layer, const quant::QuantizationOptions& options) {
  LayerRead result;
  result.format = quant::make_stored_format(io::JsonNode(layer.config, layer.config_place));
  const io::TensorFile file = stored_file(layer.tensors, layer.metadata);
  EXPECT_TRUE(result.format->holds(file, layer.module));
  EXPECT_FALSE(result.format->holds(file, layer.module + "_other"));
  const int64_t out = layer.expected.size(0), in = layer.expected.size(1);
  result.weight = result.format->read(file, layer.module, quant::WeightShape::matrix(out, in),
                                      options, at::kCPU, result.read);
  result.rows = at::empty({out, in}, at::kFloat);
  result.weight->dequantize_rows(0, 0, out, result.rows);
  return result;
}

void expect_exact(const StoredLayer& layer, bool sizes_agree) {
  const LayerRead found = read_layer(layer);
  EXPECT_TRUE(at::equal(found.rows, layer.expected))
      << "largest difference " << (found.rows - layer.expected).abs().max().item<float>();
  std::set<std::string> names;
  for (const auto& [name, tensor] : layer.tensors)
    if (!name.ends_with(".bias")) names.insert(name);
  EXPECT_EQ(found.read, names);
  if (!sizes_agree) return;
  const quant::FrozenSize told = found.format->size(
      layer.module, quant::WeightShape::matrix(layer.expected.size(0), layer.expected.size(1)));
  EXPECT_EQ(told.format, found.weight->format());
  EXPECT_EQ(told.bytes, found.weight->bytes());
  EXPECT_TRUE(told.traits == found.weight->traits());
}

bool is_packed(const quant::NamedTensors& parts, const std::string& config) {
  const StoredLayer layer = layer_of(parts, config, {});
  const auto format = quant::make_stored_format(io::JsonNode(layer.config, "config.json"));
  return format->holds(stored_file(layer.tensors), layer.module);
}

std::string warning_of(const StoredLayer& layer) {
  ::testing::internal::CaptureStderr();
  const LayerRead found = read_layer(layer);
  EXPECT_TRUE(at::equal(found.rows, layer.expected));
  return ::testing::internal::GetCapturedStderr();
}

std::string refusal_of(const StoredLayer& layer, const quant::QuantizationOptions& options) {
  try {
    read_layer(layer, options);
  } catch (const FormatError& error) {
    return error.what();
  } catch (const ConfigError& error) {
    return std::string("ConfigError: ") + error.what();
  }
  return "read";
}

std::string refusal_of(const nlohmann::json& config) {
  try {
    quant::make_stored_format(io::JsonNode(config, "config.json"));
  } catch (const FormatError& error) {
    return error.what();
  }
  return "read";
}

at::Tensor random_codes(at::IntArrayRef shape, int bits) {
  return at::randint(0, int64_t{1} << bits, shape, at::kLong);
}

at::Tensor random_scales(at::IntArrayRef shape) {
  return (at::rand(shape) * 0.02 + 0.001).to(at::kHalf);
}

at::Tensor stream_words(const at::Tensor& codes, int bits) {
  const at::Tensor stored = codes.to(at::kLong).contiguous();
  const int64_t rows = stored.size(0), count = stored.size(1);
  at::Tensor words = at::zeros({rows, (count * bits + 31) / 32}, at::kInt);
  for (int64_t r = 0; r < rows; ++r) {
    auto* row = reinterpret_cast<uint32_t*>(words.mutable_data_ptr<int32_t>()) + r * words.size(1);
    for (int64_t bit = 0; bit < count * bits; ++bit) {
      const int64_t code = stored.const_data_ptr<int64_t>()[r * count + bit / bits];
      row[bit / 32] |= static_cast<uint32_t>(code >> (bit % bits) & 1) << (bit % 32);
    }
  }
  return words;
}

at::Tensor decoded(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales,
                   const at::Tensor& group_of) {
  const at::Tensor groups = group_of.to(at::kLong);
  return (codes - zeros.to(at::kLong).index_select(1, groups)).to(at::kFloat) *
         scales.to(at::kFloat).index_select(1, groups);
}

at::Tensor ordered_groups(int64_t in, int64_t size) {
  return at::arange(in, at::kLong).div(size, "floor");
}

}  // namespace qlora::test
