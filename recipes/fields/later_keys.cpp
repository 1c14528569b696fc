#include "recipes/fields/later_keys.h"

#include <fmt/format.h>

#include <regex>

namespace qlora::recipes {
namespace {

std::string without_indices(const std::string& key) {
  static const std::regex index("\\[[0-9]+\\]");
  return std::regex_replace(key, index, "[]");
}

std::string sentence(const LaterKey& later, const std::string& subject) {
  return fmt::format("{} is not in this version; {}", subject, later.instead);
}

}  // namespace

const std::vector<LaterKey>& later_keys() {
  static const std::vector<LaterKey> table = {
      {"quantization.method", "int4 gptq awq hqq aqlm eetq",
       "a directory that is quantized so needs no key (as_stored); to quantize, use nf4, fp4, int8 "
       "or qlora quantize"},
      {"lora.init", "eva corda", "use default, loftq, pissa or olora"},
      {"optim.name", "adafactor lars", "use adamw or adamw_8bit, or their paged_ forms"},
  };
  return table;
}

std::string later_key(const std::string& key) {
  for (const LaterKey& later : later_keys())
    if (later.values.empty() && without_indices(key) == later.key) return sentence(later, key);
  return "";
}

std::string later_value(const std::string& key, const std::string& value) {
  for (const LaterKey& later : later_keys())
    if (!value.empty() && value.find(' ') == std::string::npos &&
        without_indices(key) == later.key &&
        (" " + later.values + " ").find(" " + value + " ") != std::string::npos)
      return sentence(later, key + ": " + value);
  return "";
}

}  // namespace qlora::recipes
