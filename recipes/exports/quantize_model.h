// A model to a quantized Hugging Face directory in the layout of bitsandbytes, HQQ or GPTQ, and
// back to 16 bit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "export/verify.h"
#include "quant/frozen_weight.h"
#include "quant/gptq/gptq_options.h"
#include "quant/hqq/hqq_quantize.h"
#include "quant/quantization_options.h"
#include "recipes/exports/calibration_rows.h"

namespace qlora::recipes {

struct QuantizeOptions {
  std::string model;   // directory, .gguf or hub id
  std::string output;  // directory to write
  // Its method may be hqq or gptq, too; of the rest these two take skip_modules alone.
  quant::QuantizationOptions quantization;
  quant::HqqOptions hqq;
  quant::GptqOptions gptq;
  CalibrationOptions calibration;  // of gptq
  std::string dtype = "auto";      // of what stays unquantized, as ModelOptions::dtype
  std::string device = "auto";
  int threads = 0;      // 0: all cores
  bool report = false;  // also compare with the 16-bit model

  // Throws ConfigError naming the option.
  void validate() const;
};

// What quantizing did to one linear layer: W its weight, Q what the quantized one stands for.
struct LayerError {
  std::string module, format;
  int64_t weights = 0, bytes = 0;
  double relative = 0;  // |W - Q| / |W|, Frobenius norms
  double largest = 0;   // max |W - Q|
};

// weight: [out, in] of a floating type, on the device of the quantized one.
LayerError error_of(const std::string& module, const at::Tensor& weight,
                    const quant::FrozenWeight& quantized);

// The relative errors of all layers.
struct LayerErrors {
  double mean = 0, largest = 0;
  std::string largest_in;  // module
};

struct QuantizationReport {
  std::vector<LayerError> layers;                 // those that were quantized; only if asked for
  std::optional<exporting::Agreement> agreement;  // with the 16-bit model; only if asked for
  double seconds = 0;                             // reading, quantizing and writing
  int64_t bytes = 0;                              // of all frozen weights as they are now
  std::string base_hash;
  LayerErrors errors() const;
  std::string to_json() const;
  std::string to_text() const;
};

// Quantizes, writes, reads back and compares the bytes (of hqq and gptq the values that they stand
// for), a layer at a time. Memory: the largest 16-bit tensor and one layer as it is kept; gptq has
// a 16-bit layer, the activations of the calibration rows (CalibrationOptions), and some six
// float32 matrices of a layer's inputs squared. With a report, besides, once the whole 16-bit
// model and once the quantized one, to compare what they say. ConfigError, FormatError, IoError.
QuantizationReport quantize_model(const QuantizeOptions& options);

// A directory whose weights are stored quantized (or a GGUF) as one of plain weights of `dtype`;
// auto: as the file has what is not quantized.
void dequantize_model(const std::string& model, const std::string& output,
                      const std::string& dtype);

}  // namespace qlora::recipes
