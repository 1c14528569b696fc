#include "recipes/exports/quantize_steps.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "model/skip_modules.h"
#include "quant/frozen_size.h"
#include "quant/make_frozen_weight.h"
#include "recipes/exports/grouped_export.h"
#include "recipes/models/given_model.h"

namespace qlora::recipes {

UnquantizedModel open_unquantized(const QuantizeOptions& options) {
  grow_gpu_segments();
  set_num_threads(options.threads);
  UnquantizedModel model;
  model.device = device_from_string(options.device);
  model.path = path_of_given_model(options.model);
  const auto source = model::open_weights(model.path);
  model::require_skip_modules(options.quantization, source->architecture(), "--skip-modules");
  model.dtype = given_dtype(options.dtype, *source);
  model.tokenizer = data::load_tokenizer(model.path);
  return model;
}

CalibrationRows read_calibration_rows_of(const UnquantizedModel& model,
                                         const CalibrationOptions& options) {
  const auto source = model::open_weights(model.path);
  require_calibratable(source->architecture());
  return read_calibration_rows(options, *model.tokenizer, source->architecture());
}

std::string given_dtype(const std::string& dtype, const model::WeightSource& source) {
  return dtype == "auto" ? quant::dense_format(source.dtype()) : dtype;
}

at::ScalarType compared_compute_dtype(const std::string& dtype) {
  const at::ScalarType type = model::dtype_from_string(dtype, "--dtype");
  return type == at::kHalf ? at::kFloat : type;
}

std::unique_ptr<model::CausalLm> load_compared(const std::string& path, const std::string& dtype,
                                               const quant::QuantizationOptions& quantization,
                                               at::Device device, const model::WeightMaker& make) {
  model::ModelOptions options;
  options.path = path;
  options.dtype = dtype;
  const auto source = model::open_weights(path);
  return model::load_model(*source, options, quantization, device, compared_compute_dtype(dtype),
                           make);
}

model::WeightMaker bitsandbytes_maker(const QuantizeOptions& options, QuantizationReport& report) {
  return [&options, &report](const std::string& module, const at::Tensor& weight) {
    auto frozen = quant::make_frozen_weight(weight, options.quantization, module);
    const bool is_quantized = frozen->traits().kind != quant::WeightKind::kStored;
    if (options.report && is_quantized) report.layers.push_back(error_of(module, weight, *frozen));
    return frozen;
  };
}

}  // namespace qlora::recipes
