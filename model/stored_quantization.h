// What a Hugging Face directory says of its own quantization: quantization_config in config.json,
// as transformers writes it for bitsandbytes (formats spec 1.10).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "quant/quantization_options.h"

namespace qlora::model {

// FormatError for other quantization methods, or contradictory keys. Nothing for MXFP4, in which
// files hold experts (mxfp4.h): they are decoded as they are read.
std::optional<quant::QuantizationOptions> read_quantization_config(const io::JsonNode& config);

// `skipped`: paths of the linear layers that stay in 16 bit, the head among them.
nlohmann::ordered_json quantization_config_json(const quant::QuantizationOptions& options,
                                                const std::vector<std::string>& skipped,
                                                const std::string& dtype);

// ConfigError if a recipe asks for another quantization than the model is stored in.
void require_stored_quantization(const quant::QuantizationOptions& wanted,
                                 const quant::QuantizationOptions& stored,
                                 const std::string& place);

}  // namespace qlora::model
