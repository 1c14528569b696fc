#include "model/stored_kind.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/json.h"
#include "model/weight_files.h"
#include "quant/prequantized/stored_format.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

StoredKind kind_of_gguf(const WeightSource& source) {
  std::vector<std::string> types;
  for (const std::string& module : source.architecture().linear_modules()) {
    const std::string type = source.packing(module);
    if (!type.empty() && std::ranges::find(types, type) == types.end()) types.push_back(type);
  }
  if (types.empty()) return {};
  std::ranges::sort(types);
  return {"gguf", fmt::format("GGUF, {}", fmt::join(types, " and "))};
}

// The member at the end of a path of keys; null if there is none.
json member(const json& object, std::initializer_list<const char*> keys) {
  const json* found = &object;
  for (const char* key : keys) {
    if (!found->is_object() || !found->contains(key)) return nullptr;
    found = &(*found)[key];
  }
  return *found;
}

// Where formats say their bits and groups: in the config itself, or for HQQ and compressed-tensors
// further down.
std::vector<json> settings_in(const json& config) {
  std::vector<json> all = {config, member(config, {"quant_config", "weight_quant_params"})};
  const json groups = member(config, {"config_groups"});
  if (groups.is_object() && !groups.empty()) all.push_back(member(*groups.begin(), {"weights"}));
  return all;
}

// The first of the keys that is a number above 0; 0: there is none.
int64_t number_in(const json& config, std::initializer_list<const char*> keys) {
  for (const json& settings : settings_in(config))
    for (const char* key : keys)
      if (const json value = member(settings, {key}); value.is_number_integer() && value > 0)
        return value.get<int64_t>();
  return 0;
}

std::string details_of(const json& config) {
  std::string text;
  const json codebooks = member(config, {"num_codebooks"});
  const json entries = member(config, {"nbits_per_codebook"});
  if (codebooks.is_number_integer() && entries.is_number_integer())
    text += fmt::format(", {}x{}", codebooks.get<int64_t>(), entries.get<int64_t>());
  if (const int64_t bits = number_in(config, {"bits", "w_bit", "nbits", "num_bits"}))
    text += fmt::format(", {} bit", bits);
  if (const int64_t size = number_in(config, {"group_size", "q_group_size"}))
    text += fmt::format(", groups of {}", size);
  const json block = member(config, {"weight_block_size"});
  if (block.is_array() && block.size() == 2 && block[0].is_number_integer() &&
      block[1].is_number_integer())
    text += fmt::format(", blocks of {} x {}", block[0].get<int64_t>(), block[1].get<int64_t>());
  return text;
}

StoredKind kind_of_config(const io::JsonNode& config) {
  StoredKind kind{quant::stored_method(config), ""};
  const auto format = quant::make_stored_format(config);
  kind.text = format ? format->name() : "MXFP4";
  if (kind.method.ends_with("auto-round")) kind.text = "auto-round";
  if (kind.method != "bitsandbytes") kind.text += details_of(config.value());
  return kind;
}

StoredKind kind_of_directory(const std::string& directory) {
  const std::string file = config_file(directory);
  const json document = io::read_json_file(file);
  const auto packing = packing_config(io::JsonNode(document, file), directory);
  return packing ? kind_of_config(io::JsonNode(packing->config, packing->place)) : StoredKind();
}

}  // namespace

StoredKind stored_kind(const WeightSource& source) {
  return fs::is_directory(source.place()) ? kind_of_directory(source.place())
                                          : kind_of_gguf(source);
}

}  // namespace qlora::model
