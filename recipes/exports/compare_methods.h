// What each of several methods of quantization does to one model, side by side: how small it gets,
// how far its weights are from the original ones, and how far its answers are. Nothing is written.
#pragma once

#include <string>
#include <vector>

#include "data/example.h"
#include "recipes/exports/method_table.h"
#include "recipes/exports/quantize_model.h"

namespace qlora::recipes {

struct CompareOptions {
  // The model, and the settings that the methods have in common. Its method and output mean
  // nothing; its bits are those of gptq and hqq that name none.
  QuantizeOptions quantize;
  std::vector<std::string> methods;  // nf4, fp4, int8, int8_weight_only, gptq[:BITS], hqq[:BITS]
  data::DatasetOptions held_out;     // rows to compare on; without a path a few sentences
  // Where activations lie for which there is no memory, in a file without a name.
  std::string scratch_directory = ".";

  // Throws ConfigError naming the option; without calibration rows those methods that need them.
  void validate() const;
};

// Method after method is quantized in memory as quantize_model() does it, compared with the model
// itself and forgotten. nf4, fp4 and int8 compute from what they are stored as, the others from
// their values in the model's type. Memory: once the whole 16-bit model, or in its place a
// quantized one, with the logits of the compared tokens (1 GB at most); gptq besides what
// CalibrationOptions says. Says after each method what was found and about how long the rest
// takes. Left by Stopped where a stop is wanted. ConfigError, FormatError, IoError.
MethodTable compare_methods(const CompareOptions& options);

}  // namespace qlora::recipes
