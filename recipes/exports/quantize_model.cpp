#include "recipes/exports/quantize_model.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "base/warn_once.h"
#include "data/tokenizer.h"
#include "export/config_file.h"
#include "export/merged.h"
#include "export/quantized.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "model/base_hash.h"
#include "model/load.h"
#include "quant/prequantized/read_only_formats.h"
#include "recipes/exports/grouped_export.h"
#include "recipes/exports/quantize_steps.h"
#include "recipes/exports/sample_rows.h"
#include "recipes/models/given_model.h"
#include "recipes/output_place.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

model::ModelOptions model_options(const std::string& path, const std::string& dtype) {
  model::ModelOptions options;
  options.path = path;
  options.dtype = dtype;
  return options;
}

bool is_grouped(const QuantizeOptions& options) {
  return options.quantization.method == "hqq" || options.quantization.method == "gptq";
}

// Reads the directory and gives each part to `take`; what the reader keeps goes to the report.
void read_back(const std::string& directory, const std::string& dtype, at::Device device,
               QuantizationReport& report,
               const std::function<void(const model::StreamedPart&)>& take) {
  model::BaseHasher hasher;
  const auto source = model::open_weights(directory);
  model::stream_model(*source, model_options(directory, dtype), {}, device, {},
                      [&](const model::StreamedPart& part) {
                        hasher.add(part.tensors);
                        take(part);
                      });
  report.bytes = hasher.bytes();
  report.base_hash = hasher.hex();
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

// Reads, quantizes, writes and forgets, a layer at a time. The hash of what was in memory.
std::string quantize_to(const std::string& directory, const std::string& path,
                        const data::Tokenizer& tokenizer, const QuantizeOptions& options,
                        at::Device device, QuantizationReport& report) {
  const model::WeightMaker make = bitsandbytes_maker(options, report);
  const auto source = model::open_weights(path);
  const at::ScalarType dtype = model::dtype_from_string(options.dtype, "--dtype");
  exporting::QuantizedStream target(
      directory, *source, exporting::bitsandbytes_config(options.quantization, dtype), dtype);
  model::BaseHasher hasher;
  model::stream_model(*source, model_options(path, options.dtype), options.quantization, device,
                      make, [&](const model::StreamedPart& part) {
                        hasher.add(part.tensors);
                        target.add(part);
                      });
  target.finish(tokenizer, path);
  return hasher.hex();
}

void quantize_and_check(const std::string& directory, const std::string& path,
                        const data::Tokenizer& tokenizer, const CalibrationRows& rows,
                        const QuantizeOptions& options, at::Device device,
                        QuantizationReport& report) {
  const model::Architecture architecture = model::open_weights(path)->architecture();
  warn_of_packed_experts(architecture);
  exporting::require_config(architecture, path);
  const Stopwatch watch;
  std::string written;
  if (options.quantization.method == "hqq")
    written = quantize_hqq_to(directory, path, tokenizer, options, device, report);
  else if (options.quantization.method == "gptq")
    written = quantize_gptq_to(directory, path, tokenizer, rows, options, device, report);
  else
    written = quantize_to(directory, path, tokenizer, options, device, report);
  report.seconds = watch.seconds();
  const bool by_values = is_grouped(options);
  ValuesHasher values;
  read_back(directory, options.dtype, device, report, [&](const model::StreamedPart& part) {
    if (by_values) values.add(part);
  });
  check((by_values ? values.hex() : report.base_hash) == written,
        "{}: the quantized model was not read back as it was written; nothing is left there",
        directory);
}

}  // namespace

void QuantizeOptions::validate() const {
  const std::string& method = quantization.method;
  if (method == "hqq") return hqq.validate();
  if (method == "gptq") {
    gptq.validate();
    return calibration.validate();
  }
  if (const quant::ReadOnlyFormat* format = quant::find_read_only_format(method))
    fail<ConfigError>("--method {}: {}", method, format->sentence());
  if (method != "nf4" && method != "fp4" && !method.starts_with("int8"))
    fail<ConfigError>("--method must be nf4, fp4, int8, hqq or gptq, found '{}'", method);
  quantization.validate();
}

LayerError error_of(const std::string& module, const at::Tensor& weight,
                    const quant::FrozenWeight& quantized) {
  at::Tensor restored = at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
  quantized.dequantize_rows(0, 0, weight.size(0), restored);
  const at::Tensor original = weight.to(at::kFloat);
  const double norm = original.norm().item<double>();
  restored.sub_(original);
  return {module,
          quantized.format(),
          weight.numel(),
          quantized.bytes(),
          norm > 0 ? restored.norm().item<double>() / norm : 0.0,
          restored.abs().max().item<double>()};
}

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
  return io::json_text_in_utf8(json, 2) + "\n";
}

LayerErrors QuantizationReport::errors() const {
  LayerErrors errors;
  for (const LayerError& layer : layers) {
    errors.mean += layer.relative / static_cast<double>(layers.size());
    if (layer.relative >= errors.largest) {
      errors.largest = layer.relative;
      errors.largest_in = layer.module;
    }
  }
  return errors;
}

std::string QuantizationReport::to_text() const {
  std::string text;
  for (const LayerError& layer : layers)
    text += fmt::format("{:<44} {:<8} {:>11} bytes  relative error {:.5f}  largest {:.5f}\n",
                        layer.module, layer.format, layer.bytes, layer.relative, layer.largest);
  if (!layers.empty())
    text += fmt::format("relative error: {:.5f} on average, {:.5f} in {}\n", errors().mean,
                        errors().largest, errors().largest_in);
  if (agreement) text += "against the 16-bit model: " + agreement->to_text() + "\n";
  return text;
}

QuantizationReport quantize_model(const QuantizeOptions& wanted) {
  QuantizeOptions options = wanted;
  options.validate();
  require_output_directory("--output", options.output);
  const UnquantizedModel model = open_unquantized(options);
  options.dtype = model.dtype;
  CalibrationRows rows;
  if (options.quantization.method == "gptq")
    rows = read_calibration_rows_of(model, options.calibration);
  io::AtomicDirectory target(options.output);

  std::optional<exporting::Reference> reference;
  if (options.report) {
    quant::QuantizationOptions none;
    none.method = "none";
    const auto original = load_compared(model.path, model.dtype, none, model.device);
    reference.emplace(*original, sample_sentences(*model.tokenizer));
  }
  QuantizationReport report;
  quantize_and_check(target.path(), model.path, *model.tokenizer, rows, options, model.device,
                     report);
  if (reference)
    report.agreement =
        reference->compare(*load_compared(target.path(), model.dtype, {}, model.device));
  if (options.report)
    io::write_file_atomically((fs::path(target.path()) / "quantization_report.json").string(),
                              report.to_json());
  target.commit();
  return report;
}

void dequantize_model(const std::string& model, const std::string& output,
                      const std::string& dtype) {
  require_output_directory("--output", output);
  const std::string path = path_of_given_model(model);
  const auto tokenizer = data::load_tokenizer(path);
  io::AtomicDirectory target(output);
  const std::string type = given_dtype(dtype, *model::open_weights(path));
  const auto loaded = load_compared(path, type, {}, at::kCPU);
  exporting::write_merged(target.path(), *loaded, *tokenizer, nullptr, path,
                          model::dtype_from_string(type, "--dtype"));
  target.commit();
}

}  // namespace qlora::recipes
