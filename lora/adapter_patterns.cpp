#include "lora/adapter_patterns.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::lora {
namespace {

template <typename Value>
nlohmann::ordered_json in_order(const OrderedMap<Value>& patterns) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [pattern, value] : patterns) object[pattern] = value;
  return object;
}

std::vector<std::string> keys_in_order(const nlohmann::ordered_json& file, const char* key) {
  std::vector<std::string> keys;
  for (const auto& [pattern, ignored] : file.at(key).items()) keys.push_back(pattern);
  return keys;
}

// Calls add(pattern, value) for each entry of a map.
template <typename Add>
void for_each_pattern(const io::JsonNode& config, const nlohmann::ordered_json& file,
                      const char* key, const Add& add) {
  const auto patterns = config.find(key);
  if (!patterns || patterns->value().empty()) return;
  if (!patterns->value().is_object()) patterns->reject("an object");
  for (const std::string& pattern : keys_in_order(file, key)) add(pattern, patterns->at(pattern));
}

}  // namespace

nlohmann::ordered_json patterns_json(const OrderedMap<int64_t>& patterns) {
  return in_order(patterns);
}
nlohmann::ordered_json patterns_json(const OrderedMap<double>& patterns) {
  return in_order(patterns);
}

void read_patterns(const std::string& path, const io::JsonNode& config, LoraOptions& options) {
  const nlohmann::ordered_json file = io::ordered_json_from_text(io::read_bytes(path));
  for_each_pattern(config, file, "rank_pattern",
                   [&](const std::string& pattern, const io::JsonNode& value) {
                     options.rank_pattern[pattern] = value.as_integer(1, 1 << 16);
                   });
  for_each_pattern(config, file, "alpha_pattern",
                   [&](const std::string& pattern, const io::JsonNode& value) {
                     options.alpha_pattern[pattern] = value.as_number();
                   });
}

}  // namespace qlora::lora
