#include "lora/adapter_names.h"

#include <algorithm>
#include <regex>
#include <string_view>

namespace qlora::lora {
namespace {

constexpr const char* kPrefix = "base_model.model.";

void erase_all(std::string& name, const std::string& part) {
  for (size_t at = name.find(part); at != std::string::npos; at = name.find(part))
    name.erase(at, part.size());
}

void erase_prefix(std::string& name, const std::string& prefix) {
  while (name.starts_with(prefix)) name.erase(0, prefix.size());
}

// "lora_A.default.weight" -> "lora_A.weight"; DoRA's vector has no suffix in a file.
std::string without_adapter_name(const std::string& name) {
  static const std::regex factor("(.*\\.lora_[AB])\\.[^.]+\\.weight");
  static const std::regex magnitude("(.*\\.lora_magnitude_vector)(\\.[^.]+)?\\.weight");
  static const std::regex named_magnitude("(.*\\.lora_magnitude_vector)\\.[^.]+");
  std::smatch found;
  if (std::regex_match(name, found, factor)) return found[1].str() + ".weight";
  if (std::regex_match(name, found, magnitude)) return found[1].str();
  if (std::regex_match(name, found, named_magnitude)) return found[1].str();
  return name;
}

}  // namespace

std::string peft_tensor_name(const std::string& stored) {
  std::string name = stored;
  erase_all(name, "_orig_mod.");
  erase_all(name, "_fsdp_wrapped_module.");
  erase_prefix(name, "module.");
  const bool is_marked = name.starts_with(kPrefix);
  erase_prefix(name, kPrefix);
  constexpr std::string_view kRoots[] = {"model.",   "lm_head.", "transformer.", "gpt_neox.",
                                         "encoder.", "decoder.", "shared."};
  const bool is_known =
      std::ranges::any_of(kRoots, [&](auto root) { return name.starts_with(root); });
  if (!is_marked && !is_known) return stored;
  return kPrefix + without_adapter_name(name);
}

}  // namespace qlora::lora
