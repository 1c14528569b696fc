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
#include "model/stored_kind.h"
#include "model/stored_quantization.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

bool is_dense(const quant::FrozenWeight& weight) {
  return weight.traits().kind == quant::WeightKind::kStored;
}

// The quantization_config. One that was stored is kept.
nlohmann::ordered_json quantization_of(const PackedLayers& layers,
                                       const quant::QuantizationOptions& options,
                                       const model::WeightSource& source, at::ScalarType dtype) {
  if (options.method != "as_stored") return bitsandbytes_config(options, dtype)(layers);
  const model::StoredKind stored = model::stored_kind(source);
  if (stored.method != "bitsandbytes")
    fail<ConfigError>(
        "{}: weights that are stored as {} cannot be written in bitsandbytes' layout, the only one "
        "that a base is written in",
        source.place(), stored.text);
  const std::string config = (fs::path(source.place()) / "config.json").string();
  return nlohmann::ordered_json(io::read_json_file(config).at("quantization_config"));
}

// Whether a tensor is written in the model's type: parts of packed weights are in theirs.
bool is_of_model_type(const std::string& name, const at::Tensor& tensor) {
  constexpr const char* kParts[] = {".SCB", ".scales", ".scale", ".zero"};
  return tensor.is_floating_point() && name.find(".weight.") == std::string::npos &&
         std::ranges::none_of(kParts, [&name](const char* part) { return name.ends_with(part); });
}

void write_rest(const std::string& directory, const model::Architecture& config,
                const data::Tokenizer& tokenizer, const std::string& source, at::ScalarType dtype,
                const std::optional<nlohmann::ordered_json>& quantization, bool float32_beside) {
  tokenizer.write_files(directory);
  io::write_file_atomically(
      (fs::path(directory) / "config.json").string(),
      config_text(config, tokenizer, source, dtype, quantization, true, float32_beside));
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
  const auto files = model::open_weights(source);
  std::optional<nlohmann::ordered_json> quantization;
  if (!packed.packed.empty() || !is_dense(*model.head.layers().front().base))
    quantization = quantization_of(packed, options, *files, dtype);
  Float32Beside beside(directory, *files, dtype);
  std::vector<WeightPart> parts;
  for (const auto& [name, tensor] : model.frozen_state()) {
    const at::Tensor stored = layout.in_files(name, tensor);
    const bool of_model_type = is_of_model_type(name, stored);
    parts.push_back({layout.in_files(name), stored.sizes().vec(),
                     of_model_type ? dtype : stored.scalar_type(), [stored] { return stored; }});
    if (of_model_type) beside.add(name, parts.back().name, stored);
  }
  write_weight_files(directory, parts, kPurpose);
  write_rest(directory, model.architecture(), tokenizer, source, dtype, quantization,
             beside.finish());
}

QuantizationConfig bitsandbytes_config(const quant::QuantizationOptions& options,
                                       at::ScalarType dtype) {
  return [options, dtype](const PackedLayers& layers) {
    return model::quantization_config_json(options, layers.skipped(), dtype_name(dtype));
  };
}

QuantizedStream::QuantizedStream(std::string directory, const model::WeightSource& source,
                                 QuantizationConfig config, at::ScalarType dtype)
    : directory_(std::move(directory)),
      architecture_(source.architecture()),
      layout_(architecture_),
      config_(std::move(config)),
      dtype_(dtype),
      weights_(directory_, kPurpose),
      beside_(directory_, source, dtype),
      packed_(architecture_) {}

void QuantizedStream::add(const model::StreamedPart& part) {
  for (const lora::LinearGroup* group : part.groups) packed_.add(*group);
  for (const auto& [name, tensor] : part.tensors) {
    const std::string in_files = layout_.in_files(name);
    const at::Tensor stored = layout_.in_files(name, tensor);
    const bool of_model_type = is_of_model_type(name, stored);
    weights_.add(in_files, stored, of_model_type ? dtype_ : stored.scalar_type());
    if (of_model_type) beside_.add(name, in_files, stored);
  }
}

void QuantizedStream::finish(const data::Tokenizer& tokenizer, const std::string& source) {
  weights_.finish();
  std::optional<nlohmann::ordered_json> quantization;
  if (!packed_.packed.empty()) quantization = config_(packed_);
  write_rest(directory_, architecture_, tokenizer, source, dtype_, quantization, beside_.finish());
}

}  // namespace qlora::exporting
