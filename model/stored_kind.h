// How a model's files hold its linear layers where those are quantized already, for people and for
// whoever loads the model with other tools.
#pragma once

#include <string>

#include "model/weight_source.h"

namespace qlora::model {

struct StoredKind {
  // quant_method of config.json ("gptq"), or "gguf"; empty: the layers lie in floating point.
  std::string method;
  std::string text;  // "GPTQ, 4 bit, groups of 32"; "GGUF, Q4_1 and Q6_K"
};

// By the types of a GGUF file's matrices; of a directory by its quantization_config, or what is in
// its place (weight_files.h), which says what most layers have: single ones may have other bits.
// FormatError for a format that is not read.
StoredKind stored_kind(const WeightSource& source);

}  // namespace qlora::model
