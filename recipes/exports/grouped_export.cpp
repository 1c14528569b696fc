#include "recipes/exports/grouped_export.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/cgroup.h"
#include "base/device.h"
#include "base/error.h"
#include "base/log.h"
#include "export/quantized.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "quant/formats/exported_weight.h"
#include "quant/make_frozen_weight.h"
#include "recipes/exports/activation_store.h"
#include "recipes/exports/gptq_calibration.h"
#include "recipes/exports/gptq_memory.h"
#include "recipes/exports/quantization_files.h"
#include "recipes/models/compute_dtype.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

model::ModelOptions model_options(const std::string& path, const QuantizeOptions& options) {
  model::ModelOptions result;
  result.path = path;
  result.dtype = options.dtype;
  return result;
}

std::unique_ptr<quant::FrozenWeight> hqq_weight(const std::string& module, const at::Tensor& weight,
                                                const quant::HqqOptions& options) {
  const quant::QuantizedHqq result =
      quant::hqq_quantize(weight, options, weight.scalar_type(), module);
  return std::make_unique<quant::ExportedWeight>(
      quant::hqq_file_tensors(result), result.out, result.in,
      fmt::format("hqq, {} bit", options.bits), [result] { return quant::hqq_dequantize(result); });
}

void warn_of_coarse_zeros(const QuantizeOptions& options) {
  if (options.hqq.bits == 8 && options.dtype == "bfloat16")
    log::warning(
        "hqq stores zeros in the type of the unquantized weights; bfloat16 rounds those of 8-bit "
        "codes by up to half a code. --dtype float16 or float32 keeps them");
}

// What is left for the rows' activations, beside what the process has and a block will take.
int64_t activation_bytes(const QuantizeOptions& options, const model::CausalLm& model,
                         const CalibrationRows& rows) {
  const int64_t most = options.calibration.max_memory_bytes;
  if (most <= 0) return usable_memory_bytes() / 2;
  if (!model.device().is_cpu()) return most;
  const std::vector<int64_t> lengths = rows.lengths();
  const at::ScalarType stored = model::dtype_from_string(options.dtype, "--dtype");
  const GptqMemory work = gptq_memory(model.architecture(), options.gptq,
                                      static_cast<int64_t>(c10::elementSize(stored)),
                                      static_cast<int64_t>(c10::elementSize(model.compute_dtype())),
                                      *std::ranges::max_element(lengths));
  const int64_t loaded = resident_bytes(), needed = loaded + work.total();
  const auto mb = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  if (most < needed)
    log::warning(
        "--max-memory is {:.0f} MB, and {:.0f} MB are taken also with the activations on disk: "
        "{:.0f} by what is loaded, {:.0f} by the weights of a block, {:.0f} by a matrix that is "
        "rounded, {:.0f} by the products of its inputs (Hessians), {:.0f} by the pass of a "
        "sequence; a smaller --sequence-length lowers the last",
        mb(most), mb(needed), mb(loaded), mb(work.weights), mb(work.rounding), mb(work.hessians),
        mb(work.pass));
  return std::max<int64_t>(0, most - needed);
}

void tell_of_weights_without_inputs(const GptqCalibration& calibration) {
  if (calibration.num_without_inputs() > 0)
    log::warning(
        "{} matrices of experts got hardly any of the calibration rows' tokens and were rounded to "
        "nearest; more rows (--samples) reach more experts",
        calibration.num_without_inputs());
}

}  // namespace

void ValuesHasher::add(const std::string& name, const at::Tensor& tensor) {
  const at::Tensor values = tensor.cpu().contiguous();
  hasher_.update(name);
  hasher_.update({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
}

void ValuesHasher::add(const model::StreamedPart& part) {
  std::set<std::string> linears;
  for (const lora::LinearGroup* group : part.groups)
    for (const lora::LoraLinear& linear : group->layers()) {
      at::Tensor values =
          at::empty({linear.out_features(), linear.in_features()},
                    at::TensorOptions().dtype(at::kFloat).device(linear.base->device()));
      linear.base->dequantize_rows(0, 0, linear.out_features(), values);
      add(linear.name, values);
      linears.insert(linear.name);
    }
  for (const auto& [name, tensor] : part.tensors) {
    const bool is_of_linear = linears.contains(name.substr(0, name.rfind('.')));
    if (!is_of_linear || name.ends_with(".bias")) add(name, tensor);
  }
}

quant::QuantizationOptions unquantized(const QuantizeOptions& options) {
  quant::QuantizationOptions none;
  none.method = "none";
  none.skip_modules = options.quantization.skip_modules;
  return none;
}

model::WeightMaker hqq_maker(const QuantizeOptions& options, QuantizationReport& report) {
  warn_of_coarse_zeros(options);
  return [&options, &report](const std::string& module,
                             const at::Tensor& weight) -> std::unique_ptr<quant::FrozenWeight> {
    if (quant::is_skipped(options.quantization, module))
      return std::make_unique<quant::DenseWeight>(weight);
    auto quantized = hqq_weight(module, weight, options.hqq);
    if (options.report) report.layers.push_back(error_of(module, weight.cpu(), *quantized));
    return quantized;
  };
}

std::string quantize_hqq_to(const std::string& directory, const std::string& path,
                            const data::Tokenizer& tokenizer, const QuantizeOptions& options,
                            at::Device device, QuantizationReport& report) {
  const auto source = model::open_weights(path);
  exporting::QuantizedStream target(
      directory, *source,
      [&](const exporting::PackedLayers& layers) { return hqq_config_json(options.hqq, layers); },
      model::dtype_from_string(options.dtype, "--dtype"));
  ValuesHasher hasher;
  model::stream_model(*source, model_options(path, options), unquantized(options), device,
                      hqq_maker(options, report), [&](const model::StreamedPart& part) {
                        hasher.add(part);
                        target.add(part);
                      });
  target.finish(tokenizer, path);
  return hasher.hex();
}

void stream_gptq(const std::string& path, const CalibrationRows& rows,
                 const QuantizeOptions& options, at::Device device, const std::string& directory,
                 QuantizationReport& report,
                 const std::function<void(const model::StreamedPart&)>& take) {
  const auto source = model::open_weights(path);
  const model::Architecture& architecture = source->architecture();
  require_calibratable(architecture);
  const model::ModelOptions reading = model_options(path, options);
  const quant::QuantizationOptions none = unquantized(options);
  const auto model =
      model::load_without_blocks(*source, reading, device, compute_dtype_of("auto", device));
  ActivationStore activations(rows.lengths(), architecture.hidden_size,
                              activation_bytes(options, *model, rows), directory);
  if (activations.in_file())
    log::info("the calibration rows' activations, {:.1f} GB, lie in a file of {}",
              static_cast<double>(activations.bytes()) / 1e9, directory);
  GptqCalibration calibration(*model, rows, activations, options.gptq, none,
                              [&](const std::string& module, const at::Tensor& weight,
                                  const quant::FrozenWeight& quantized) {
                                if (options.report)
                                  report.layers.push_back(error_of(module, weight, quantized));
                              });
  model::stream_model(*source, reading, none, device, {}, take,
                      [&](int64_t layer, model::Block& block, Progress& progress) {
                        calibration.quantize_block(layer, block, progress);
                      });
  tell_of_weights_without_inputs(calibration);
}

std::string quantize_gptq_to(const std::string& directory, const std::string& path,
                             const data::Tokenizer& tokenizer, const CalibrationRows& rows,
                             const QuantizeOptions& options, at::Device device,
                             QuantizationReport& report) {
  nlohmann::ordered_json config;
  const auto source = model::open_weights(path);
  exporting::QuantizedStream target(
      directory, *source,
      [&](const exporting::PackedLayers& layers) {
        return config = gptq_config_json(options.gptq, layers, rows.facts);
      },
      model::dtype_from_string(options.dtype, "--dtype"));
  ValuesHasher hasher;
  stream_gptq(path, rows, options, device, directory, report, [&](const model::StreamedPart& part) {
    hasher.add(part);
    target.add(part);
  });
  target.finish(tokenizer, path);
  io::write_file_atomically((fs::path(directory) / "quantize_config.json").string(),
                            io::json_text(config, 2) + "\n");
  return hasher.hex();
}

void require_calibratable(const model::Architecture& architecture) {
  if (architecture.has_encoder())
    fail<ConfigError>(
        "gptq is calibrated through the layers of a decoder, and {} has an encoder; choose hqq, "
        "nf4, fp4 or int8",
        architecture.family);
}

}  // namespace qlora::recipes
