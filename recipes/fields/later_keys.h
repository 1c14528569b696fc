// Keys and values that people know and a run cannot do: not in this version, or made elsewhere.
// They are refused by name, so that nobody believes they act. An entry goes when its feature
// comes.
#pragma once

#include <string>
#include <vector>

namespace qlora::recipes {

struct LaterKey {
  std::string key;     // "quantization.method", "data.train[].format"
  std::string values;  // words separated by spaces; empty: the key as a whole
  std::string instead;
  std::string refusal = "is not in this version";
};

const std::vector<LaterKey>& later_keys();

// "lora.use_dora is not in this version; ...", or empty if the key is not of that kind. Indices as
// in data.train[0] do not matter.
std::string later_key(const std::string& key);
// "lora.init: eva is not in this version; use default, gaussian, ...", or empty.
std::string later_value(const std::string& key, const std::string& value);

}  // namespace qlora::recipes
