#include "model/stored_quantization.h"

#include <nlohmann/json.hpp>

namespace qlora::model {

nlohmann::ordered_json quantization_config_json(const quant::QuantizationOptions& options,
                                                const std::vector<std::string>& skipped,
                                                const std::string& dtype) {
  const bool eight = options.method.starts_with("int8");
  return {{"_load_in_4bit", !eight},
          {"_load_in_8bit", eight},
          {"bnb_4bit_compute_dtype", eight ? "float32" : dtype},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", eight ? "fp4" : options.method},
          {"bnb_4bit_use_double_quant", !eight && options.double_quant},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", skipped},
          {"llm_int8_threshold", options.threshold},
          {"load_in_4bit", !eight},
          {"load_in_8bit", eight},
          {"quant_method", "bitsandbytes"}};
}

}  // namespace qlora::model
