#include "quant/prequantized/stored_format.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "base/warn_once.h"
#include "quant/prequantized/aqlm.h"
#include "quant/prequantized/auto_round.h"
#include "quant/prequantized/awq.h"
#include "quant/prequantized/bitsandbytes.h"
#include "quant/prequantized/compressed_tensors.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/eetq.h"
#include "quant/prequantized/fp8.h"
#include "quant/prequantized/gptq.h"
#include "quant/prequantized/hqq.h"
#include "quant/prequantized/stored_parts.h"
#include "quant/prequantized/torchao.h"

namespace qlora::quant {
namespace {

struct Reader {
  const char* method;  // quant_method
  std::unique_ptr<StoredFormat> (*make)(const io::JsonNode& config);
};

std::unique_ptr<StoredFormat> mxfp4(const io::JsonNode& config) {
  check_config_keys(config, {});
  return nullptr;
}

constexpr std::array<Reader, 14> kReaders = {{{"bitsandbytes", bitsandbytes_format},
                                              {"gptq", gptq_format},
                                              {"awq", awq_format},
                                              {"auto-round", auto_round_format},
                                              {"intel/auto-round", auto_round_format},
                                              {"compressed-tensors", compressed_tensors_format},
                                              {"fp8", fp8_format},
                                              {"fbgemm_fp8", fp8_format},
                                              {"mxfp8", fp8_format},
                                              {"hqq", hqq_format},
                                              {"aqlm", aqlm_format},
                                              {"torchao", torchao_format},
                                              {"eetq", eetq_format},
                                              {"mxfp4", mxfp4}}};

// Of a config without quant_method, as old tools wrote them, by the keys that each has alone.
std::string method_by_keys(const io::JsonNode& config) {
  const auto has = [&](const char* key) { return config.find(key).has_value(); };
  if (has("load_in_4bit") || has("load_in_8bit")) return "bitsandbytes";
  if (has("config_groups")) return "compressed-tensors";
  if (has("w_bit") || has("q_group_size") || (has("bits") && has("zero_point"))) return "awq";
  if (has("bits")) return "gptq";
  return config.at("quant_method").as_string();
}

}  // namespace

void StoredFormat::require(const QuantizationOptions& options, const std::string& place) const {
  require_as_stored(options, name(), place);
}

std::string stored_method(const io::JsonNode& config) {
  const auto said =
      config.find("quant_method") ? first_of(config, {"quant_method", "method"}) : std::nullopt;
  return said ? said->as_string() : method_by_keys(config);
}

std::unique_ptr<StoredFormat> make_stored_format(const io::JsonNode& config) {
  const std::string method = stored_method(config);
  if (config.value().contains("quant_method") && !config.find("quant_method"))
    log::warning_once("{}.quant_method is null; its other keys are those of {}, which is read",
                      config.place(), method);
  for (const Reader& reader : kReaders)
    if (method == reader.method) return reader.make(config);
  std::vector<std::string> methods;
  for (const Reader& reader : kReaders) methods.emplace_back(reader.method);
  fail<FormatError>(
      "{}: the weights are quantized by '{}', which this version does not read; give the original "
      "16-bit model, or one quantized by {}",
      config.place(), method, fmt::join(methods, ", "));
}

}  // namespace qlora::quant
