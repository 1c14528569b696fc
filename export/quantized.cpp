#include "export/quantized.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "export/config_file.h"
#include "export/weight_files.h"
#include "io/atomic_write.h"
#include "io/json.h"
#include "model/stored_quantization.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

bool is_dense(const quant::FrozenWeight& weight) {
  return weight.traits().kind == quant::WeightKind::kStored;
}

// The quantization_config, none if every weight is dense. One that was stored is kept.
std::optional<nlohmann::ordered_json> quantization_of(const PackedLayers& layers,
                                                      const quant::QuantizationOptions& options,
                                                      const std::string& source,
                                                      at::ScalarType dtype) {
  if (layers.packed.empty()) return std::nullopt;
  if (options.method == "as_stored") {
    const std::string path = (fs::path(source) / "config.json").string();
    if (fs::exists(path)) {
      const nlohmann::json config = io::read_json_file(path);
      if (config.contains("quantization_config"))
        return nlohmann::ordered_json(config["quantization_config"]);
    }
    throw ConfigError(
        "weights in GGUF blocks have no place in a Hugging Face directory; name a "
        "quantization.method");
  }
  return bitsandbytes_config(options, dtype)(layers);
}

// Norms are held in fp32 and quantized parts in their own types, in which they are written.
at::ScalarType stored_dtype(const std::string& name, const at::Tensor& tensor,
                            at::ScalarType dtype) {
  constexpr const char* kParts[] = {".SCB", ".scales", ".scale", ".zero"};
  const bool part_of_packed =
      name.find(".weight.") != std::string::npos ||
      std::ranges::any_of(kParts, [&name](const char* part) { return name.ends_with(part); });
  return tensor.is_floating_point() && !part_of_packed ? dtype : tensor.scalar_type();
}

void write_rest(const std::string& directory, const model::Architecture& config,
                const data::Tokenizer& tokenizer, const std::string& source, at::ScalarType dtype,
                const std::optional<nlohmann::ordered_json>& quantization) {
  tokenizer.write_files(directory);
  io::write_file_atomically((fs::path(directory) / "config.json").string(),
                            config_text(config, tokenizer, source, dtype, quantization, true));
}

constexpr const char* kPurpose = "the quantized model";

}  // namespace

// Versions of transformers differ in what they call the module of a head that files name otherwise.
PackedLayers::PackedLayers(const model::Architecture& architecture)
    : heads{architecture.head.names.hugging_face} {
  const std::string in_files = model::FileLayout(architecture).in_files(heads.front());
  if (in_files != heads.front()) heads.push_back(in_files);
}

std::vector<std::string> PackedLayers::skipped() const {
  std::vector<std::string> all = heads;
  all.insert(all.end(), unpacked.begin(), unpacked.end());
  return all;
}

void PackedLayers::add(const lora::LinearGroup& group) {
  for (const lora::LoraLinear& linear : group.layers()) {
    (is_dense(*linear.base) ? unpacked : packed).push_back(linear.name);
  }
}

void write_quantized(const std::string& directory, const model::CausalLm& model,
                     const quant::QuantizationOptions& options, const data::Tokenizer& tokenizer,
                     const std::string& source, at::ScalarType dtype) {
  at::NoGradGuard no_grad;
  const model::FileLayout layout(model.architecture());
  PackedLayers packed(model.architecture());
  for (const lora::LinearGroup* group : model.groups()) packed.add(*group);
  const auto quantization = quantization_of(packed, options, source, dtype);
  std::vector<WeightPart> parts;
  for (const auto& [name, tensor] : model.frozen_state()) {
    const at::Tensor stored = layout.in_files(name, tensor);
    parts.push_back({layout.in_files(name), stored.sizes().vec(), stored_dtype(name, stored, dtype),
                     [stored] { return stored; }});
  }
  write_weight_files(directory, parts, kPurpose);
  write_rest(directory, model.architecture(), tokenizer, source, dtype, quantization);
}

QuantizationConfig bitsandbytes_config(const quant::QuantizationOptions& options,
                                       at::ScalarType dtype) {
  return [options, dtype](const PackedLayers& layers) {
    return model::quantization_config_json(options, layers.skipped(), dtype_name(dtype));
  };
}

QuantizedStream::QuantizedStream(std::string directory, const model::Architecture& architecture,
                                 QuantizationConfig config, at::ScalarType dtype)
    : directory_(std::move(directory)),
      architecture_(architecture),
      layout_(architecture),
      config_(std::move(config)),
      dtype_(dtype),
      weights_(directory_, kPurpose),
      packed_(architecture) {}

void QuantizedStream::add(const model::StreamedPart& part) {
  for (const lora::LinearGroup* group : part.groups) packed_.add(*group);
  for (const auto& [name, tensor] : part.tensors)
    weights_.add(layout_.in_files(name), layout_.in_files(name, tensor),
                 stored_dtype(name, tensor, dtype_));
}

void QuantizedStream::finish(const data::Tokenizer& tokenizer, const std::string& source) {
  weights_.finish();
  std::optional<nlohmann::ordered_json> quantization;
  if (!packed_.packed.empty()) quantization = config_(packed_);
  write_rest(directory_, architecture_, tokenizer, source, dtype_, quantization);
}

}  // namespace qlora::exporting
