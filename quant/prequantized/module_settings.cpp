#include "quant/prequantized/module_settings.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/warn_once.h"
#include "quant/prequantized/grouped_layer.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr int64_t kLargestGroup = int64_t{1} << 30;
// GPTQModel's own settings of a quantized head.
constexpr ModuleSettings kHead{.bits = 8, .group_size = 32};

std::string sizes_text(int bits, int64_t group_size) {
  if (group_size <= 0) return fmt::format("{} bits and a group a row", bits);
  return fmt::format("{} bits in groups of {}", bits, group_size);
}

// The settings of `node` where it has some, else `settings`.
ModuleSettings changed(ModuleSettings settings, const io::JsonNode& node,
                       std::span<const int> widths) {
  if (const auto bits = first_of(node, {"bits", "w_bit"})) {
    const int64_t width = bits->as_integer(1, 32);
    if (std::ranges::find(widths, width) == widths.end())
      bits->reject(fmt::format("one of {}", fmt::join(widths, ", ")));
    settings.bits = static_cast<int>(width);
  }
  if (const auto size = first_of(node, {"group_size", "q_group_size"})) {
    settings.group_size = size->as_integer(-1, kLargestGroup);
    if (settings.group_size == 0) size->reject("-1 or a number of columns");
  }
  const auto zero_point = node.find("zero_point"), sym = node.find("sym");
  if (zero_point && sym && zero_point->as_bool() == sym->as_bool())
    log::warning_once("{} and {} are both {}; the latter is used", zero_point->place(),
                      sym->place(), sym->as_bool());
  if (zero_point) settings.sym = !zero_point->as_bool();
  if (sym) settings.sym = sym->as_bool();
  settings.says_sym = settings.says_sym || zero_point || sym;
  settings.desc_act = node.bool_or("desc_act", settings.desc_act);
  return settings;
}

}  // namespace

void require_integers(const io::JsonNode& config) {
  if (const auto dtype = config.find("pack_dtype"); dtype && dtype->as_string() != "int32")
    dtype->reject("'int32'");
  if (const auto type = config.find("data_type"); type && type->as_string() != "int")
    type->reject("'int'");
}

SettingsOfModules::SettingsOfModules(const io::JsonNode& config, std::span<const int> bits)
    : place_(config.place()) {
  if (!first_of(config, {"bits", "w_bit"})) config.at("bits").reject("a number");
  all_ = changed({}, config, bits);
  lm_head_ = config.bool_or("lm_head", false);
  const auto dynamic = config.find("dynamic");
  if (!dynamic) return;
  if (!dynamic->value().is_object()) dynamic->reject("an object");
  for (const auto& [key, value] : dynamic->value().items()) add_override(*dynamic, key, bits);
}

void SettingsOfModules::add_override(const io::JsonNode& dynamic, const std::string& key,
                                     std::span<const int> bits) {
  const bool left_out = key.starts_with("-:");
  const io::JsonNode node = dynamic.at(key);
  const std::string text = left_out || key.starts_with("+:") ? key.substr(2) : key;
  NamePatterns& patterns = left_out ? left_out_ : overrides_;
  const bool is_name = text.find_first_of(".^$*+?()[]{}|\\") == std::string::npos;
  if (is_name && text.size() <= kLongestPattern)
    patterns.add_name(text);
  else
    patterns.add_pattern(text, node);
  if (!left_out) changed_.push_back(changed(all_, node, bits));
}

std::vector<ModuleSettings> SettingsOfModules::of(const std::string& module) const {
  std::vector<ModuleSettings> settings;
  for (const size_t number : overrides_.matching(module)) settings.push_back(changed_[number]);
  if (settings.empty() && lm_head_ && (module == "lm_head" || module.ends_with(".lm_head")))
    settings.push_back(kHead);
  settings.push_back(all_);
  return settings;
}

std::vector<ModuleSettings> SettingsOfModules::said_of(const std::string& module) const {
  std::vector<ModuleSettings> settings = of(module);
  if (!overrides_.matching(module).empty()) settings.pop_back();
  return settings;
}

void SettingsOfModules::warn_of_other_sizes(const std::string& module, int64_t in, int bits,
                                            int64_t group_size) const {
  constexpr const char* kTopic = "bits and groups";
  const auto columns = [in](int64_t size) { return std::min(group_columns(in, size), in); };
  const auto agrees = [&](const ModuleSettings& one) {
    return one.bits == bits && columns(one.group_size) == columns(group_size);
  };
  const std::vector<ModuleSettings> said = said_of(module);
  if (!left_out_.matching(module).empty() && overrides_.matching(module).empty())
    warn_of_tensors(place_, kTopic, module, "no quantization", sizes_text(bits, group_size));
  else if (std::ranges::none_of(said, agrees))
    warn_of_tensors(place_, kTopic, module, sizes_text(said.front().bits, said.front().group_size),
                    sizes_text(bits, group_size));
}

void SettingsOfModules::warn_of_other_zeros(const std::string& module, int bits,
                                            const at::Tensor& zeros) const {
  const int middle = 1 << (bits - 1);
  const std::vector<ModuleSettings> said = said_of(module);
  const auto symmetric = [](const ModuleSettings& one) { return one.says_sym && one.sym; };
  if (std::ranges::all_of(said, symmetric) && zeros.ne(middle).any().item<bool>())
    warn_of_tensors(place_, "zeros", module, fmt::format("zeros that are all {} (sym)", middle),
                    "others");
}

}  // namespace qlora::quant
