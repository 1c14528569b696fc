#include "recipes/fields/later_keys.h"

#include <fmt/format.h>

#include <regex>

#include "quant/prequantized/read_only_formats.h"
#include "recipes/fields/values_in_words.h"

namespace qlora::recipes {
namespace {

std::string without_indices(const std::string& key) {
  static const std::regex index("\\[[0-9]+\\]");
  return std::regex_replace(key, index, "[]");
}

std::string sentence(const LaterKey& later, const std::string& subject) {
  return fmt::format("{} {}; {}", subject, later.refusal, later.instead);
}

std::vector<LaterKey> make_later_keys() {
  std::vector<LaterKey> table = {
      {"quantization.method", "int4", "use nf4 or fp4"},
      {"quantization.method", "gptq",
       "qlora quantize --method gptq first, then name its directory in model.path, without this "
       "key",
       "is not made by a run"},
      {"quantization.method", "hqq",
       "qlora quantize --method hqq first, then name its directory in model.path, without this key",
       "is not made by a run"},
      {"lora.init", "eva corda", "use " + values_in_words("lora.init")},
      {"optim.name", "adafactor lars", "use adamw or adamw_8bit, or their paged_ forms"},
  };
  for (const quant::ReadOnlyFormat& format : quant::read_only_formats())
    table.push_back({"quantization.method", format.method,
                     "a directory that is quantized so needs no key (as_stored)",
                     "is read, not written: " + format.reason});
  return table;
}

}  // namespace

const std::vector<LaterKey>& later_keys() {
  static const std::vector<LaterKey> table = make_later_keys();
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
