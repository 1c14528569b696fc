#include "export/quantized.h"

#include <ATen/ATen.h>

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
  return dynamic_cast<const quant::DenseWeight*>(&weight) != nullptr;
}

std::vector<const lora::LoraLinear*> linears_of(const model::CausalLm& model) {
  std::vector<const lora::LoraLinear*> all;
  for (const model::DecoderLayer& layer : model.layers)
    for (const lora::LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
      for (const lora::LoraLinear& linear : group->layers()) all.push_back(&linear);
  return all;
}

// The quantization_config, none if every weight is dense. One that was stored is kept.
std::optional<nlohmann::ordered_json> quantization_of(const model::CausalLm& model,
                                                      const quant::QuantizationOptions& options,
                                                      const std::string& source,
                                                      at::ScalarType dtype) {
  std::vector<std::string> skipped = {"lm_head"};
  bool packed = false;
  for (const lora::LoraLinear* linear : linears_of(model)) {
    if (is_dense(*linear->base))
      skipped.push_back(linear->name);
    else
      packed = true;
  }
  if (!packed) return std::nullopt;
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
  return model::quantization_config_json(options, skipped, dtype_name(dtype));
}

}  // namespace

void write_quantized(const std::string& directory, const model::CausalLm& model,
                     const quant::QuantizationOptions& options, const data::Tokenizer& tokenizer,
                     const std::string& source, at::ScalarType dtype) {
  at::NoGradGuard no_grad;
  const auto quantization = quantization_of(model, options, source, dtype);
  std::vector<WeightPart> parts;
  for (const auto& [name, tensor] : model.frozen_state()) {
    // Norms are held in fp32 and quantized parts in their own types; scales stay fp32.
    const bool part_of_packed =
        name.ends_with(".SCB") || name.find(".weight.") != std::string::npos;
    const at::ScalarType kept =
        tensor.is_floating_point() && !part_of_packed ? dtype : tensor.scalar_type();
    parts.push_back({name, tensor.sizes().vec(), kept, [tensor = tensor] { return tensor; }});
  }
  write_weight_files(directory, parts, "the quantized model");
  tokenizer.write_files(directory);
  io::write_file_atomically((fs::path(directory) / "config.json").string(),
                            config_text(model, tokenizer, source, dtype, quantization, true));
}

}  // namespace qlora::exporting
