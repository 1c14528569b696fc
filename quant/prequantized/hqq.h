// HQQ layers (Badri and Shaji 2023): packed codes W_q, scale and zero, and beside them the settings
// of the layer as tensors, which decide over config.json. transformers up to 4.57 writes them; the
// same names come from hqq's own qmodel.pt, where settings that are no numbers may be missing.
#pragma once

#include <memory>

#include "io/json.h"
#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// Of a quantization_config with quant_method "hqq". Its size() counts scales and zeros of 16 bits,
// of which the configuration says nothing. FormatError naming the key for values that cannot be.
std::unique_ptr<StoredFormat> hqq_format(const io::JsonNode& config);

}  // namespace qlora::quant
