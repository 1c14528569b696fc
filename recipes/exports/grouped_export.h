// Quantized directories in the forms of HQQ and GPTQ, whose layers are read back in another form
// than the one in which they were written (quant/prequantized/stored_format.h).
#pragma once

#include <functional>
#include <string>

#include "data/tokenizer.h"
#include "io/hashing.h"
#include "model/load.h"
#include "recipes/exports/calibration_rows.h"
#include "recipes/exports/quantize_model.h"

namespace qlora::recipes {

// A hash over what a model's weights are: the float32 values of each linear layer, however they
// are kept, and the other tensors.
class ValuesHasher {
 public:
  void add(const model::StreamedPart& part);
  std::string hex() const { return hasher_.hex(); }

 private:
  void add(const std::string& name, const at::Tensor& tensor);

  io::Hasher hasher_;
};

// Makes HQQ's layers, on the CPU; their errors go to the report if options.report asks for it. Both
// must outlive the maker, and options.dtype must be resolved.
model::WeightMaker hqq_maker(const QuantizeOptions& options, QuantizationReport& report);

// The model in `path` part by part with its layers quantized by GPTQ, on the CPU. Activations for
// which there is no memory lie in a file of `directory`. ConfigError for models with an encoder.
void stream_gptq(const std::string& path, const CalibrationRows& rows,
                 const QuantizeOptions& options, at::Device device, const std::string& directory,
                 QuantizationReport& report,
                 const std::function<void(const model::StreamedPart&)>& take);

// Everything as it is read, apart from what options.quantization skips.
quant::QuantizationOptions unquantized(const QuantizeOptions& options);

// The model in `path` to `directory`, which must exist, a layer at a time; layers and their errors
// go to the report if it is asked for. options.dtype must be resolved. The hash of its values.
std::string quantize_hqq_to(const std::string& directory, const std::string& path,
                            const data::Tokenizer& tokenizer, const QuantizeOptions& options,
                            at::Device device, QuantizationReport& report);
// The same by GPTQ, with quantize_config.json besides; errors of stream_gptq().
std::string quantize_gptq_to(const std::string& directory, const std::string& path,
                             const data::Tokenizer& tokenizer, const CalibrationRows& rows,
                             const QuantizeOptions& options, at::Device device,
                             QuantizationReport& report);

// ConfigError unless GPTQ can be calibrated on models of this description.
void require_calibratable(const model::Architecture& architecture);

}  // namespace qlora::recipes
