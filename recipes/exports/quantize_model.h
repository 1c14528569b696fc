// A model to a quantized Hugging Face directory in bitsandbytes' layout, and back to 16 bit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "export/verify.h"
#include "quant/quantization_options.h"

namespace qlora::recipes {

struct QuantizeOptions {
  std::string model;   // directory, .gguf or hub id
  std::string output;  // directory to write
  quant::QuantizationOptions quantization;
  std::string dtype = "auto";  // of what stays unquantized, as ModelOptions::dtype
  std::string device = "auto";
  int threads = 0;      // 0: all cores
  bool report = false;  // also compare with the 16-bit model
};

// What quantizing did to one linear layer: W its weight, Q what the quantized one stands for.
struct LayerError {
  std::string module, format;
  int64_t weights = 0, bytes = 0;
  double relative = 0;  // |W - Q| / |W|, Frobenius norms
  double largest = 0;   // max |W - Q|
};

struct QuantizationReport {
  std::vector<LayerError> layers;
  std::optional<exporting::Agreement> agreement;  // with the 16-bit model; only if asked for
  double seconds = 0;                             // reading, quantizing and writing
  int64_t bytes = 0;                              // of all frozen weights as they are now
  std::string base_hash;
  std::string to_json() const;
  std::string to_text() const;
};

// Quantizes, writes, reads back and compares the bytes, a layer at a time. Memory: the largest
// 16-bit tensor and one layer as it is kept; with a report, besides, once the whole 16-bit model
// and once the quantized one, to compare what they say. ConfigError, FormatError, IoError.
QuantizationReport quantize_model(const QuantizeOptions& options);

// A directory whose weights are stored quantized (or a GGUF) as one of 16-bit weights.
void dequantize_model(const std::string& model, const std::string& output,
                      const std::string& dtype);

}  // namespace qlora::recipes
