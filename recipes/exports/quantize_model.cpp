#include "recipes/exports/quantize_model.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/device.h"
#include "base/error.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "base/warn_once.h"
#include "data/tokenizer.h"
#include "export/merged.h"
#include "export/quantized.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "model/base_hash.h"
#include "model/hub_cache.h"
#include "model/load.h"
#include "quant/frozen_size.h"
#include "quant/make_frozen_weight.h"
#include "recipes/exports/sample_rows.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

model::ModelOptions model_options(const std::string& path, const std::string& dtype) {
  model::ModelOptions options;
  options.path = path;
  options.dtype = dtype;
  return options;
}

std::unique_ptr<model::CausalLm> load(const std::string& path, const std::string& dtype,
                                      const quant::QuantizationOptions& quantization,
                                      at::Device device) {
  const at::ScalarType type = model::dtype_from_string(dtype, "--dtype");
  const at::ScalarType compute = type == at::kHalf ? at::kFloat : type;
  const auto source = model::open_weights(path);
  return model::load_model(*source, model_options(path, dtype), quantization, device, compute);
}

LayerError error_of(const std::string& module, const at::Tensor& weight,
                    const quant::FrozenWeight& frozen) {
  at::Tensor restored = at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
  frozen.dequantize_rows(0, 0, weight.size(0), restored);
  const at::Tensor original = weight.to(at::kFloat);
  const double norm = original.norm().item<double>();
  restored.sub_(original);
  return {module,
          frozen.format(),
          weight.numel(),
          frozen.bytes(),
          norm > 0 ? restored.norm().item<double>() / norm : 0.0,
          restored.abs().max().item<double>()};
}

// What was written is what was in memory, bit for bit.
void check_written(const std::string& directory, const std::string& dtype, at::Device device,
                   const std::string& base_hash) {
  model::BaseHasher hasher;
  const auto source = model::open_weights(directory);
  model::stream_model(*source, model_options(directory, dtype), {}, device, {},
                      [&](const model::StreamedPart& part) { hasher.add(part.tensors); });
  check(hasher.hex() == base_hash,
        "{}: the quantized model was not read back as it was written; nothing is left there",
        directory);
}

// transformers 5 holds experts stacked, and bitsandbytes packs no stacks.
void warn_of_packed_experts(const model::Architecture& architecture) {
  for (const model::BlockSpec& block : architecture.decoder.kinds)
    for (const model::Branch& branch : block.branches)
      if (branch.experts()) {
        log::warning_once(
            "the experts are packed one by one, which this program reads and transformers does "
            "not: there they would start at random");
        return;
      }
}

// Reads, quantizes, writes and forgets, a layer at a time.
void quantize_to(const std::string& directory, const std::string& path,
                 const data::Tokenizer& tokenizer, const QuantizeOptions& options,
                 at::Device device, QuantizationReport& report) {
  const model::WeightMaker make = [&](const std::string& module, const at::Tensor& weight) {
    auto frozen = quant::make_frozen_weight(weight, options.quantization, module);
    if (options.report) report.layers.push_back(error_of(module, weight, *frozen));
    return frozen;
  };
  const auto source = model::open_weights(path);
  warn_of_packed_experts(source->architecture());
  exporting::QuantizedStream target(directory, source->architecture(), options.quantization,
                                    model::dtype_from_string(options.dtype, "--dtype"));
  model::BaseHasher hasher;
  model::stream_model(*source, model_options(path, options.dtype), options.quantization, device,
                      make, [&](const model::StreamedPart& part) {
                        hasher.add(part.tensors);
                        target.add(part);
                      });
  target.finish(tokenizer, path);
  report.bytes = hasher.bytes();
  report.base_hash = hasher.hex();
}

}  // namespace

std::string QuantizationReport::to_json() const {
  nlohmann::ordered_json json = {{"base_hash", base_hash}, {"bytes", bytes}, {"seconds", seconds}};
  if (agreement) json["against_16_bit"] = io::ordered_json_from_text(agreement->to_json());
  json["layers"] = nlohmann::ordered_json::array();
  for (const LayerError& layer : layers)
    json["layers"].push_back({{"module", layer.module},
                              {"format", layer.format},
                              {"weights", layer.weights},
                              {"bytes", layer.bytes},
                              {"relative_error", layer.relative},
                              {"largest_error", layer.largest}});
  return io::json_text(json, 2) + "\n";
}

std::string QuantizationReport::to_text() const {
  std::string text;
  double worst = 0, sum = 0;
  std::string worst_module;
  for (const LayerError& layer : layers) {
    text += fmt::format("{:<44} {:<8} {:>11} bytes  relative error {:.5f}  largest {:.5f}\n",
                        layer.module, layer.format, layer.bytes, layer.relative, layer.largest);
    sum += layer.relative;
    if (layer.relative >= worst) {
      worst = layer.relative;
      worst_module = layer.module;
    }
  }
  if (!layers.empty())
    text += fmt::format("relative error: {:.5f} on average, {:.5f} in {}\n",
                        sum / static_cast<double>(layers.size()), worst, worst_module);
  if (agreement) text += "against the 16-bit model: " + agreement->to_text() + "\n";
  return text;
}

QuantizationReport quantize_model(const QuantizeOptions& wanted) {
  QuantizeOptions options = wanted;
  options.quantization.validate();
  if (options.quantization.method == "none" || options.quantization.method == "as_stored")
    throw ConfigError("--method must be nf4, fp4 or int8");
  set_num_threads(options.threads);
  const at::Device device = device_from_string(options.device);
  const std::string path = model::resolve_model_path(options.model);
  if (options.dtype == "auto")
    options.dtype = quant::dense_format(model::open_weights(path)->dtype());
  const auto tokenizer = data::load_tokenizer(path);
  io::AtomicDirectory target(options.output);

  std::optional<exporting::Reference> reference;
  if (options.report) {
    quant::QuantizationOptions none;
    none.method = "none";
    const auto original = load(path, options.dtype, none, device);
    reference.emplace(*original, sample_sentences(*tokenizer));
  }
  QuantizationReport report;
  const Stopwatch watch;
  quantize_to(target.path(), path, *tokenizer, options, device, report);
  report.seconds = watch.seconds();
  check_written(target.path(), options.dtype, device, report.base_hash);
  if (reference)
    report.agreement = reference->compare(*load(target.path(), options.dtype, {}, device));
  if (options.report)
    io::write_file_atomically((fs::path(target.path()) / "quantization_report.json").string(),
                              report.to_json());
  target.commit();
  return report;
}

void dequantize_model(const std::string& model, const std::string& output,
                      const std::string& dtype) {
  const std::string path = model::resolve_model_path(model);
  const auto tokenizer = data::load_tokenizer(path);
  io::AtomicDirectory target(output);
  const auto loaded = load(path, dtype, {}, at::kCPU);
  exporting::write_merged(target.path(), *loaded, *tokenizer, nullptr, path,
                          model::dtype_from_string(dtype, "--dtype"));
  target.commit();
}

}  // namespace qlora::recipes
