#include "quant/prequantized/torchao.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/known_keys.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/grouped_layer.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr const char* kFormat = "torchao";
constexpr const char* kParts[] = {"_weight_qdata", "_weight_scale", "_weight_zero_point"};

constexpr std::string_view kRead[] = {"quant_type"};
// Which modules are packed, and how, the tensors say.
constexpr std::string_view kHarmless[] = {"quant_type_kwargs", "include_input_output_embeddings",
                                          "untie_embedding_weights"};
// Of the type: its groups, which the tensors have, and how other programs compute.
constexpr std::string_view kOfType[] = {
    "granularity",  "group_size",          "layout", "act_mapping_type", "weight_only_decode",
    "mapping_type", "set_inductor_config", "version"};

void require_int8(const io::JsonNode& config) {
  const io::JsonNode type = config.at("quant_type");
  const auto by_default =
      type.value().is_object() ? type.find("default") : std::optional<io::JsonNode>(type);
  if (!by_default) type.reject("an object with a member 'default'");
  check_config_keys(config, kRead, kHarmless);
  if (by_default->value().is_object())
    if (const auto data = by_default->find("_data"); data && data->value().is_object())
      io::warn_of_other_keys(*data, {kOfType});
  const io::JsonNode name = by_default->value().is_object() ? by_default->at("_type") : *by_default;
  const std::string found = name.as_string();
  if (found == "Int8DynamicActivationInt8WeightConfig")
    warn_of_quantized_activations(name);
  else if (found != "Int8WeightOnlyConfig" && found != "int8_weight_only")
    name.reject("Int8WeightOnlyConfig or Int8DynamicActivationInt8WeightConfig, which are read");
}

// What the metadata says of the layer, if it says something.
void require_class(const io::TensorFile& file, const StoredParts& parts) {
  const std::string key = parts.module() + ".weight";
  const auto said = file.metadata.find(key);
  if (said == file.metadata.end()) return;
  const std::string place = parts.place() + ": metadata of " + key;
  const nlohmann::json document = io::parse_json(said->second, place);
  const io::JsonNode type = io::JsonNode(document, place).at("_type");
  if (type.as_string() != "Int8Tensor") type.reject("Int8Tensor");
}

class Torchao final : public StoredFormat {
 public:
  explicit Torchao(const io::JsonNode& config) { require_int8(config); }

  std::string name() const override { return kFormat; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    return file.find(module + "._weight_qdata") != nullptr;
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    StoredParts parts(file, module, kFormat, read);
    require_as_stored(options, name(), parts.place());
    require_matrix(shape, parts);
    require_class(file, parts);
    GroupedTensor weight = decode(parts, shape);
    parts.require_all_taken();
    return grouped_layer(std::move(weight), kFormat, module, device);
  }

  FrozenSize size(const std::string&, const WeightShape& shape) const override {
    return grouped_size(shape, {.bits = 8, .bytes_of_scale = sizeof(float)}, kFormat);
  }

 private:
  static GroupedTensor decode(StoredParts& parts, const WeightShape& shape) {
    const int64_t groups = std::max<int64_t>(parts.size("_weight_scale", 1), 1);
    if (shape.in % groups != 0)
      parts.reject("_weight_scale", fmt::format("must have groups that divide {} inputs, found {}",
                                                shape.in, groups));
    GroupedTensor weight;
    weight.bits = 8;
    weight.in = shape.in;
    weight.group_size = shape.in / groups;
    weight.codes = rows_of_int8(parts.take("_weight_qdata", io::DType::kI8, {shape.out, shape.in}));
    weight.scales = parts.take_scales("_weight_scale", {shape.out, groups});
    constexpr int kZero = 128;  // of codes that are bytes from 0
    weight.zero = kZero;
    if (parts.find("_weight_zero_point"))
      weight.zeros = parts.take("_weight_zero_point", io::DType::kI8, {shape.out, groups})
                         .to(at::kInt)
                         .add(kZero)
                         .to(at::kByte);
    return weight;
  }
};

}  // namespace

std::unique_ptr<StoredFormat> torchao_format(const io::JsonNode& config) {
  return std::make_unique<Torchao>(config);
}

}  // namespace qlora::quant
