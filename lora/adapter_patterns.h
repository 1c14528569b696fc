// rank_pattern and alpha_pattern in adapter_config.json. The first key that matches a module
// decides, in the order of the file, as PEFT reads it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "io/json.h"
#include "lora/lora_options.h"

namespace qlora::lora {

// An object with the keys in their order.
nlohmann::ordered_json patterns_json(const OrderedMap<int64_t>& patterns);
nlohmann::ordered_json patterns_json(const OrderedMap<double>& patterns);

// Both maps of `config`, which was read from `path`: that file is asked for the order, which
// `config` has not. FormatError if one is no object of numbers.
void read_patterns(const std::string& path, const io::JsonNode& config, LoraOptions& options);

}  // namespace qlora::lora
