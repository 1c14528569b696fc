#include "optim/optimizer_names.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/error.h"

namespace qlora::optim {
namespace {

constexpr OptimizerKind kKinds[] = {
    {"adamw", 32, false},
    {"adamw_8bit", 8, false},
    {"paged_adamw", 32, true},
    {"paged_adamw_8bit", 8, true},
};

// Names of transformers, bitsandbytes and PyTorch (lower case, without a module path) -> ours.
constexpr std::pair<const char*, const char*> kOtherNames[] = {
    {"adamw", "adamw"},  // torch.optim.AdamW
    {"adamw_torch", "adamw"},
    {"adamw_torch_fused", "adamw"},
    {"adamw_hf", "adamw"},
    {"adamw_apex_fused", "adamw"},
    {"adamw_32bit", "adamw"},
    {"adamw32bit", "adamw"},
    {"adam", "adamw"},
    {"adamw_bnb_8bit", "adamw_8bit"},
    {"adamw8bit", "adamw_8bit"},
    {"adam8bit", "adamw_8bit"},
    {"adamw8", "adamw_8bit"},
    {"paged_adamw_32bit", "paged_adamw"},
    {"pagedadamw", "paged_adamw"},
    {"pagedadamw32bit", "paged_adamw"},
    {"pagedadamw8bit", "paged_adamw_8bit"},
    {"paged_adamw8bit", "paged_adamw_8bit"},
};

std::string simplified(std::string name) {
  if (const size_t dot = name.rfind('.'); dot != std::string::npos) name.erase(0, dot + 1);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return name;
}

std::string known_names() {
  std::string list;
  for (const OptimizerKind& kind : kKinds)
    list += (list.empty() ? "" : ", ") + std::string(kind.name);
  return list;
}

}  // namespace

const OptimizerKind& optimizer_kind(const std::string& name) {
  for (const OptimizerKind& kind : kKinds)
    if (name == kind.name) return kind;
  for (const auto& [other, ours] : kOtherNames)
    if (simplified(name) == other)
      fail<ConfigError>("optim.name: '{}' is called {} here (known: {})", name, ours,
                        known_names());
  fail<ConfigError>("optim.name must be one of {}, got '{}'", known_names(), name);
}

}  // namespace qlora::optim
