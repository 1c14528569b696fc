// What bitsandbytes stores (quant/formats/bitsandbytes_layout.h), by the quantization_config that
// transformers writes beside it.
#pragma once

#include <memory>

#include "quant/prequantized/stored_format.h"
#include "quant/quantization_options.h"

namespace qlora::quant {

// The options that make such weights: method, double_quant or threshold. FormatError for
// contradictory keys.
QuantizationOptions bitsandbytes_options(const io::JsonNode& config);

// Its read() also takes options of the same method, and int8_weight_only for int8.
std::unique_ptr<StoredFormat> bitsandbytes_format(const io::JsonNode& config);

}  // namespace qlora::quant
