// One layer as another tool stores it: made, read back by its format, and decoded.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "io/safetensors.h"
#include "quant/prequantized/stored_format.h"

namespace qlora::test {

// A safetensors file of these tensors, mapped as a model's is; its folder is gone already.
io::TensorFile stored_file(const quant::NamedTensors& tensors,
                           const std::map<std::string, std::string>& metadata = {});

struct StoredLayer {
  nlohmann::json config;        // quantization_config
  quant::NamedTensors tensors;  // by the names that they have in the file
  at::Tensor expected;          // float32 [out, in]
  std::string module = "layers.0.q_proj";
  std::map<std::string, std::string> metadata = {};
  std::string config_place = "config.json";  // another one where warnings once a config are asked

  void add(const std::string& part, const at::Tensor& tensor);
  void replace(const std::string& part, const at::Tensor& tensor);
  void remove(const std::string& part);
  at::Tensor part(const std::string& part) const;
};

// The layer "layer" with these parts and the text of its config.
StoredLayer layer_of(const quant::NamedTensors& parts, const std::string& config,
                     const at::Tensor& expected);

struct LayerRead {
  std::unique_ptr<quant::StoredFormat> format;
  std::unique_ptr<quant::FrozenWeight> weight;
  std::set<std::string> read;
  at::Tensor rows;  // decoded to float32
};

LayerRead read_layer(const StoredLayer& layer, const quant::QuantizationOptions& options = {});
// EXPECT that the layer decodes to `expected` bit for bit, that each of its tensors but a bias was
// read, and that format, bytes and traits are those that were told from the config alone, unless
// `sizes_agree` is false.
void expect_exact(const StoredLayer& layer, bool sizes_agree = true);
// Whether the format of the config takes the layer "layer" of these parts for its own.
bool is_packed(const quant::NamedTensors& parts, const std::string& config);
// What is warned of as the layer is read. EXPECTs that it decodes to `expected`.
std::string warning_of(const StoredLayer& layer);
// What is said of the layer that is refused; "read" if it is not.
std::string refusal_of(const StoredLayer& layer, const quant::QuantizationOptions& options = {});
// ... of a config alone.
std::string refusal_of(const nlohmann::json& config);

// Random codes, int64 of `shape`, below 2^bits.
at::Tensor random_codes(at::IntArrayRef shape, int bits);
// Positive float16 of the size that scales have.
at::Tensor random_scales(at::IntArrayRef shape);
// Codes [rows, count] to words int32 [rows, ⌈count bits / 32⌉], a stream of bits a row.
at::Tensor stream_words(const at::Tensor& codes, int bits);
// (codes - zeros[:, group_of]) * scales[:, group_of] in float32; codes [out, in], zeros and scales
// [out, groups], group_of [in].
at::Tensor decoded(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales,
                   const at::Tensor& group_of);
// Groups of `size` columns in their order, int64 [in].
at::Tensor ordered_groups(int64_t in, int64_t size);

}  // namespace qlora::test
