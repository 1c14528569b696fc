#include "model/stored_quantization.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace qlora::model {

std::optional<quant::QuantizationOptions> read_quantization_config(const io::JsonNode& config) {
  const std::string method = config.string_or("quant_method", "bitsandbytes");
  if (method == "mxfp4") return std::nullopt;
  if (method != "bitsandbytes") {
    fail<FormatError>(
        "{}: the weights are quantized by '{}', which this version does not read; give the "
        "original "
        "16-bit model, or one that bitsandbytes quantized",
        config.place(), method);
  }
  quant::QuantizationOptions stored;
  const bool four = config.bool_or("load_in_4bit", false);
  const bool eight = config.bool_or("load_in_8bit", false);
  if (four == eight) {
    fail<FormatError>("{}: exactly one of load_in_4bit and load_in_8bit must be true",
                      config.place());
  }
  if (eight) {
    stored.method = "int8";
    if (const auto threshold = config.find("llm_int8_threshold"))
      stored.threshold = threshold->as_number();
  } else {
    stored.method = config.string_or("bnb_4bit_quant_type", "fp4");
    if (stored.method != "nf4" && stored.method != "fp4")
      config.at("bnb_4bit_quant_type").reject("nf4 or fp4");
    stored.double_quant = config.bool_or("bnb_4bit_use_double_quant", false);
  }
  return stored;
}

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

void require_stored_quantization(const quant::QuantizationOptions& wanted,
                                 const quant::QuantizationOptions& stored,
                                 const std::string& place) {
  if (wanted.method == "as_stored") return;
  const bool same = wanted.method == stored.method ||
                    (wanted.method == "int8_weight_only" && stored.method == "int8");
  if (!same) {
    fail<ConfigError>(
        "quantization.method: {} holds weights in {}, and the recipe asks for {}; leave out the "
        "section quantization to take them as they are, or give the original 16-bit model",
        place, stored.method, wanted.method);
  }
  const bool four_bit = stored.method == "nf4" || stored.method == "fp4";
  if (four_bit && wanted.double_quant != stored.double_quant) {
    fail<ConfigError>(
        "quantization.double_quant: {} holds weights {} double quantization; leave out the section "
        "quantization to take them as they are",
        place, stored.double_quant ? "with" : "without");
  }
}

}  // namespace qlora::model
