#include "quant/prequantized/auto_round.h"

#include <nlohmann/json.hpp>

#include "quant/prequantized/awq.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/gptq.h"
#include "quant/prequantized/module_settings.h"

namespace qlora::quant {
namespace {

// What GPTQ's and AWQ's tools write besides is said again by packing_format.
constexpr std::string_view kRead[] = {
    "bits",         "group_size", "sym",     "zero_point", "data_type",         "packing_format",
    "extra_config", "desc_act",   "lm_head", "format",     "checkpoint_format", "pack_dtype"};

// A layer's name as a pattern for that name alone; patterns stay what they are.
std::string pattern_of(const std::string& layer) {
  if (layer.find_first_of("^$*+?()[]{}|\\") != std::string::npos) return layer;
  std::string pattern;
  for (const char c : layer) {
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return pattern + '$';
}

nlohmann::json dynamic_of(const io::JsonNode& layers) {
  constexpr int64_t kNotQuantized = 16;
  if (!layers.value().is_object()) layers.reject("an object");
  nlohmann::json dynamic = nlohmann::json::object();
  for (const auto& [name, value] : layers.value().items()) {
    const io::JsonNode layer = layers.at(name);
    const auto bits = layer.find("bits");
    if (bits && bits->as_integer(1, 32) >= kNotQuantized) continue;
    nlohmann::json& changed = dynamic[pattern_of(name)] = nlohmann::json::object();
    for (const char* key : {"bits", "group_size", "sym"})
      if (const auto setting = layer.find(key)) changed[key] = setting->value();
  }
  return dynamic;
}

}  // namespace

std::unique_ptr<StoredFormat> auto_round_format(const io::JsonNode& config) {
  const io::JsonNode packing = config.at("packing_format");
  const std::string layout = packing.as_string();
  const bool gptq = layout == "auto_round:auto_gptq";
  if (!gptq && layout != "auto_round:auto_awq")
    packing.reject("'auto_round:auto_gptq' or 'auto_round:auto_awq', the layouts that are read");
  require_integers(config);
  check_config_keys(config, kRead, keys_of_choosing());
  nlohmann::json inner = {{"bits", config.at("bits").value()},
                          {"sym", config.bool_or("sym", true)},
                          {"format", gptq ? "gptq" : "gemm"}};
  if (const auto size = config.find("group_size")) inner["group_size"] = size->value();
  if (const auto layers = config.find("extra_config")) inner["dynamic"] = dynamic_of(*layers);
  const io::JsonNode node(inner, config.place());
  return gptq ? gptq_format(node) : awq_format(node);
}

}  // namespace qlora::quant
