#include "quant/prequantized/module_settings.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace qlora::quant {
namespace {

constexpr size_t kLongestPattern = 1000;
constexpr int64_t kLargestGroup = int64_t{1} << 30;
// GPTQModel's own settings of a quantized head.
constexpr ModuleSettings kHead{.bits = 8, .group_size = 32};

std::optional<io::JsonNode> either(const io::JsonNode& node, const char* key, const char* older) {
  const auto found = node.find(key);
  return found ? found : node.find(older);
}

// The settings of `node` where it has some, else `settings`.
ModuleSettings changed(ModuleSettings settings, const io::JsonNode& node,
                       std::span<const int> widths) {
  if (const auto bits = either(node, "bits", "w_bit")) {
    const int64_t width = bits->as_integer(1, 32);
    if (std::ranges::find(widths, width) == widths.end())
      bits->reject(fmt::format("one of {}", fmt::join(widths, ", ")));
    settings.bits = static_cast<int>(width);
  }
  if (const auto size = either(node, "group_size", "q_group_size")) {
    settings.group_size = size->as_integer(-1, kLargestGroup);
    if (settings.group_size == 0) size->reject("-1 or a number of columns");
  }
  if (const auto zero_point = node.find("zero_point")) settings.sym = !zero_point->as_bool();
  settings.sym = node.bool_or("sym", settings.sym);
  settings.desc_act = node.bool_or("desc_act", settings.desc_act);
  return settings;
}

}  // namespace

std::regex name_pattern(const std::string& text, const io::JsonNode& node) {
  if (text.size() > kLongestPattern)
    node.reject(fmt::format("a pattern of at most {} characters", kLongestPattern));
  try {
    return std::regex(text, std::regex::ECMAScript);
  } catch (const std::regex_error&) {
    node.reject(fmt::format("under a regular expression of ECMAScript, which '{}' is not", text));
  }
}

bool matches_start(const std::regex& pattern, const std::string& name) {
  return std::regex_search(name, pattern, std::regex_constants::match_continuous);
}

bool SettingsOfModules::Override::matches(const std::string& module) const {
  return is_plain ? module == text : matches_start(pattern, module);
}

SettingsOfModules::SettingsOfModules(const io::JsonNode& config, std::span<const int> bits) {
  if (!either(config, "bits", "w_bit")) config.at("bits").reject("a number");
  all_ = changed({}, config, bits);
  lm_head_ = config.bool_or("lm_head", false);
  const auto dynamic = config.find("dynamic");
  if (!dynamic) return;
  if (!dynamic->value().is_object()) dynamic->reject("an object");
  for (const auto& [key, value] : dynamic->value().items()) add_override(*dynamic, key, bits);
}

void SettingsOfModules::add_override(const io::JsonNode& dynamic, const std::string& key,
                                     std::span<const int> bits) {
  if (key.starts_with("-:")) return;  // those modules are not packed
  const io::JsonNode node = dynamic.at(key);
  Override added;
  added.text = key.starts_with("+:") ? key.substr(2) : key;
  added.is_plain = added.text.find_first_of(".^$*+?()[]{}|\\") == std::string::npos;
  added.pattern = name_pattern(added.text, node);
  added.settings = changed(all_, node, bits);
  overrides_.push_back(std::move(added));
}

std::vector<ModuleSettings> SettingsOfModules::of(const std::string& module) const {
  std::vector<ModuleSettings> settings;
  for (const Override& one : overrides_)
    if (one.matches(module)) settings.push_back(one.settings);
  if (settings.empty() && lm_head_ && (module == "lm_head" || module.ends_with(".lm_head")))
    settings.push_back(kHead);
  settings.push_back(all_);
  return settings;
}

}  // namespace qlora::quant
