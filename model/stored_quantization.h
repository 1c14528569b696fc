// quantization_config in the config.json of a directory that this program quantized, as
// transformers writes it for bitsandbytes (BitsAndBytesConfig of transformers 5.23).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "quant/quantization_options.h"

namespace qlora::model {

// `skipped`: paths of the linear layers that stay in 16 bit, the head among them.
nlohmann::ordered_json quantization_config_json(const quant::QuantizationOptions& options,
                                                const std::vector<std::string>& skipped,
                                                const std::string& dtype);

}  // namespace qlora::model
