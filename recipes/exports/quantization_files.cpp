#include "recipes/exports/quantization_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <vector>

namespace qlora::recipes {
namespace {

// Readers want a tool and a version; this is the version of what is written here.
constexpr const char* kQuantizer = "qlora.cpp:1";

// Matches this module alone.
std::string as_pattern(const std::string& module) {
  std::string pattern = "^";
  for (const char c : module) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
  return pattern + "$";
}

// "self_attn.q_proj" of "model.layers.0.self_attn.q_proj".
std::string hqq_tag(const std::string& module) {
  std::string tag, part;
  for (std::istringstream parts(module); std::getline(parts, part, '.');) {
    const bool is_number = part.find_first_not_of("0123456789") == std::string::npos;
    if (part == "model" || part == "layers" || is_number) continue;
    tag += (tag.empty() ? "" : ".") + part;
  }
  return tag;
}

// Behind the number of the block: "self_attn.q_proj" of "model.layers.0.self_attn.q_proj".
std::string within_block(const std::string& module) {
  size_t begin = 0;
  for (size_t end; (end = module.find('.', begin)) != std::string::npos; begin = end + 1)
    if (end > begin && module.find_first_not_of("0123456789", begin) == end)
      return module.substr(end + 1);
  return module;
}

std::set<std::string> within_blocks(const std::vector<std::string>& modules) {
  std::set<std::string> names;
  for (const std::string& module : modules) names.insert(within_block(module));
  return names;
}

// transformers does not read "dynamic", and knows what is packed by its name in all blocks alike.
// Empty where that is not so.
std::vector<std::string> packed_in_each_block(const exporting::PackedLayers& layers) {
  const std::set<std::string> packed = within_blocks(layers.packed),
                              unpacked = within_blocks(layers.unpacked);
  std::vector<std::string> names;
  for (const std::string& name : packed) {
    if (unpacked.contains(name)) return {};
    names.push_back(name);
  }
  return names;
}

}  // namespace

nlohmann::ordered_json gptq_config_json(const quant::GptqOptions& options,
                                        const exporting::PackedLayers& layers,
                                        const CalibrationFacts& calibration) {
  const char* format = options.symmetric ? "gptq" : "gptq_v2";
  nlohmann::ordered_json dynamic = nlohmann::ordered_json::object();
  for (const std::string& module : layers.unpacked)
    dynamic["-:" + as_pattern(module)] = nlohmann::ordered_json::object();
  nlohmann::ordered_json json = {{"bits", options.bits},
                                 {"group_size", options.group_size},
                                 {"desc_act", options.order == quant::GptqOrder::kActivations},
                                 {"sym", options.symmetric},
                                 {"lm_head", false},
                                 {"quant_method", "gptq"},
                                 {"method", "gptq"},
                                 {"format", format},
                                 {"checkpoint_format", format},
                                 {"pack_dtype", "int32"},
                                 {"damp_percent", options.damp},
                                 {"static_groups", options.static_groups},
                                 {"true_sequential", options.true_sequential}};
  if (!dynamic.empty()) {
    json["dynamic"] = dynamic;
    if (const auto names = packed_in_each_block(layers); !names.empty())
      json["modules_in_block_to_quantize"] = {names};
  }
  json["meta"] = {{"quantizer", {kQuantizer}},
                  {"damp_percent", options.damp},
                  {"static_groups", options.static_groups},
                  {"true_sequential", options.true_sequential},
                  {"mse", options.mse},
                  {"act_group_aware", options.order == quant::GptqOrder::kGroups},
                  {"calibration",
                   {{"name", calibration.name},
                    {"hash", calibration.hash},
                    {"sequences", calibration.sequences},
                    {"tokens", calibration.tokens}}}};
  return json;
}

nlohmann::ordered_json hqq_config_json(const quant::HqqOptions& options,
                                       const exporting::PackedLayers& layers) {
  std::vector<std::string> skipped = layers.heads;
  for (const std::string& module : layers.unpacked)
    if (const std::string tag = hqq_tag(module); std::ranges::count(skipped, tag) == 0)
      skipped.push_back(tag);
  nlohmann::ordered_json group_size;  // null: a group a row or column
  if (options.group_size > 0) group_size = options.group_size;
  return {{"quant_method", "hqq"},
          {"quant_config",
           {{"weight_quant_params",
             {{"nbits", options.bits},
              {"channel_wise", true},
              {"group_size", group_size},
              {"optimize", true},
              {"round_zero", options.bits == 4},
              {"axis", options.axis},
              {"view_as_float", false}}},
            {"scale_quant_params", nullptr},
            {"zero_quant_params", nullptr},
            {"offload_meta", false}}},
          {"skip_modules", skipped}};
}

}  // namespace qlora::recipes
