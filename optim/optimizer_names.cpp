#include "optim/optimizer_names.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/error.h"

namespace qlora::optim {
namespace {

struct Family {
  const char* name;
  Rule rule;
  bool only_plain;
  std::vector<double> betas;
};

// bitsandbytes' Adam is its AdamW with another default decay: here both have the recipe's.
const std::vector<Family>& families() {
  static const std::vector<Family> table = {
      {"adamw", Rule::kAdam, false, {0.9, 0.999}},
      {"adam", Rule::kAdam, false, {0.9, 0.999}},
      {"lion", Rule::kLion, false, {0.9, 0.99}},
      {"ademamix", Rule::kAdemamix, false, {0.9, 0.999, 0.9999}},
      {"sgd", Rule::kMomentum, false, {0.9}},
      {"rmsprop", Rule::kRmsprop, false, {0.99}},
      {"adagrad", Rule::kAdagrad, false, {}},
      {"lamb", Rule::kLamb, true, {0.9, 0.999}},
  };
  return table;
}

const std::vector<OptimizerKind>& kinds() {
  static const std::vector<OptimizerKind> table = [] {
    std::vector<OptimizerKind> all;
    for (const Family& family : families())
      for (const bool paged : {false, true})
        for (const int bits : {32, 8})
          if (!family.only_plain || (!paged && bits == 32))
            all.push_back(
                {(paged ? "paged_" : "") + std::string(family.name) + (bits == 8 ? "_8bit" : ""),
                 family.rule, bits, paged, family.betas});
    return all;
  }();
  return table;
}

// Families of transformers, bitsandbytes and PyTorch that are called otherwise here.
constexpr std::pair<const char*, const char*> kOtherFamilies[] = {{"momentum", "sgd"},
                                                                  {"msprop", "rmsprop"}};

bool remove(std::string& name, const std::string& part) {
  const size_t at = name.find(part);
  if (at == std::string::npos) return false;
  name.erase(at, part.size());
  return true;
}

std::string joined_families(const std::string& between) {
  std::string list;
  for (const Family& family : families())
    list += (list.empty() ? "" : between) + std::string(family.name);
  return list;
}

std::string known_names() {
  return joined_families(", ") + "; all but lamb also as paged_NAME, NAME_8bit and paged_NAME_8bit";
}

}  // namespace

std::string optimizer_name_here(const std::string& theirs) {
  std::string name = theirs;
  if (const size_t dot = name.rfind('.'); dot != std::string::npos) name.erase(0, dot + 1);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const bool paged = remove(name, "paged");
  const bool codes = remove(name, "8bit") || remove(name, "8");
  for (const char* part : {"32bit", "_bnb", "_torch", "_fused", "_hf", "_apex", "_xla"})
    remove(name, part);
  name.erase(std::remove(name.begin(), name.end(), '_'), name.end());
  for (const auto& [other, ours] : kOtherFamilies)
    if (name == other) name = ours;
  for (const OptimizerKind& kind : kinds())
    if (kind.name == (paged ? "paged_" : "") + name + (codes ? "_8bit" : "")) return kind.name;
  return "";
}

std::string optimizer_families() { return joined_families(" | "); }

const OptimizerKind& optimizer_kind(const std::string& name) {
  for (const OptimizerKind& kind : kinds())
    if (name == kind.name) return kind;
  if (const std::string ours = optimizer_name_here(name); !ours.empty())
    fail<ConfigError>("optim.name: '{}' is called {} here (known: {})", name, ours, known_names());
  fail<ConfigError>("optim.name must be one of {}; got '{}'", known_names(), name);
}

}  // namespace qlora::optim
