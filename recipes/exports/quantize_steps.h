// The steps that quantizing a model to a directory (quantize_model.h) and comparing what methods do
// to one (compare_methods.h) share.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "model/load.h"
#include "quant/quantization_options.h"
#include "recipes/exports/calibration_rows.h"
#include "recipes/exports/quantize_model.h"

namespace qlora::recipes {

// A model that is to be quantized, before its weights are read.
struct UnquantizedModel {
  std::string path;   // a directory or a .gguf file
  std::string dtype;  // of what stays unquantized: bfloat16, float16 or float32
  at::Device device = at::kCPU;
  std::unique_ptr<data::Tokenizer> tokenizer;
};

// Sets the number of threads, too. ConfigError, FormatError, IoError.
UnquantizedModel open_unquantized(const QuantizeOptions& options);

// What gptq is calibrated on. ConfigError for models with an encoder; errors of
// read_calibration_rows().
CalibrationRows read_calibration_rows_of(const UnquantizedModel& model,
                                         const CalibrationOptions& options);

// "bfloat16" and so on: what was given, or for auto what the file has.
std::string given_dtype(const std::string& dtype, const model::WeightSource& source);

// The type in which a model of this dtype computes where it is compared with another one.
at::ScalarType compared_compute_dtype(const std::string& dtype);

// The whole model in `path`, to compare it: errors of model::load_model().
std::unique_ptr<model::CausalLm> load_compared(const std::string& path, const std::string& dtype,
                                               const quant::QuantizationOptions& quantization,
                                               at::Device device,
                                               const model::WeightMaker& make = {});

// Makes the layers of nf4, fp4 and int8, whose errors go to the report if options.report asks for
// it. Both must outlive the maker.
model::WeightMaker bitsandbytes_maker(const QuantizeOptions& options, QuantizationReport& report);

}  // namespace qlora::recipes
