// AQLM layers (Egiazarian et al. 2024): codes, codebooks and scales, as the aqlm package and
// transformers write them.
#pragma once

#include <memory>

#include "io/json.h"
#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// Of a quantization_config with quant_method "aqlm". Its size() counts 16-bit codebooks and scales.
// FormatError naming the key for values that cannot be.
std::unique_ptr<StoredFormat> aqlm_format(const io::JsonNode& config);

}  // namespace qlora::quant
