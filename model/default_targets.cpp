#include "model/default_targets.h"

#include <algorithm>

#include "base/error.h"

namespace qlora::model {
namespace {

constexpr const char* kWord = "peft-default";

struct DefaultTargets {
  std::vector<std::string> families, targets;
};

const std::vector<DefaultTargets>& default_targets() {
  static const std::vector<DefaultTargets> all = {
      {{"llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "stablelm",
        "gpt_neo", "gptj", "opt"},
       {"q_proj", "v_proj"}},
      {{"phi"}, {"q_proj", "v_proj", "fc1", "fc2"}},
      {{"gpt2"}, {"c_attn"}},
      {{"bloom", "falcon", "gpt_neox"}, {"query_key_value"}},
      {{"mpt"}, {"Wqkv"}},
      {{"t5", "mt5"}, {"q", "v"}}};
  return all;
}

}  // namespace

std::vector<std::string> peft_default_targets(const Architecture& a) {
  if (a.is_multimodal) return {};
  for (const DefaultTargets& defaults : default_targets())
    if (std::ranges::count(defaults.families, a.family)) return defaults.targets;
  return {};
}

void name_default_targets(const Architecture& a, lora::LoraOptions& options) {
  const auto word = std::ranges::find(options.targets, kWord);
  if (word == options.targets.end()) return;
  const std::vector<std::string> names = peft_default_targets(a);
  if (names.empty())
    fail<ConfigError>(
        "lora.targets: PEFT has no default targets for {}the family {}; write all-linear, or the "
        "names of modules",
        a.is_multimodal ? "models of text and images of " : "", a.family);
  options.targets.erase(word);
  for (const std::string& name : names)
    if (!std::ranges::count(options.targets, name)) options.targets.push_back(name);
}

}  // namespace qlora::model
