// FP8 layers: `weight` of type F8_E4M3 with scales of the tensor, of rows or of blocks beside it,
// as DeepSeek, Qwen and transformers (quant_method "fp8"), fbgemm ("fbgemm_fp8"), MXFP8 files
// ("mxfp8") and compressed-tensors ("float-quantized") write them. The stored scale multiplies,
// also where it is called weight_scale_inv.
#pragma once

#include <memory>

#include "io/json.h"
#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// Of a quantization_config of one of these methods. It is asked for the size of blocks only; which
// layers are packed the tensors say. FormatError naming the key for contradictory values.
std::unique_ptr<StoredFormat> fp8_format(const io::JsonNode& config);

}  // namespace qlora::quant
