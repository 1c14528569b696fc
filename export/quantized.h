// A quantized base as a Hugging Face directory in bitsandbytes' layout
// (quant/bitsandbytes_layout.h): what transformers and PEFT load, and what model.path reads without
// quantizing again.
#pragma once

#include <string>

#include "data/tokenizer.h"
#include "model/causal_lm.h"
#include "quant/quantization_options.h"

namespace qlora::exporting {

// Writes config.json with its quantization_config, the frozen weights as they lie in memory, the
// rest in `dtype`, and the tokenizer, into `directory`, which must exist. `source` is where the
// base came from. ConfigError for weights that this layout cannot hold (GGUF blocks).
void write_quantized(const std::string& directory, const model::CausalLm& model,
                     const quant::QuantizationOptions& options, const data::Tokenizer& tokenizer,
                     const std::string& source, at::ScalarType dtype);

}  // namespace qlora::exporting
