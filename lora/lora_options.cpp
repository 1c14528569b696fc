#include "lora/lora_options.h"

#include <cmath>
#include <regex>

#include "base/compiled_pattern.h"
#include "base/error.h"
#include "base/faults.h"
#include "lora/expert_names.h"
#include "lora/initial_factors.h"

namespace qlora::lora {
namespace {

constexpr int64_t kLargestRank = 4096;

void check_rank(const std::string& key, int64_t rank) {
  if (rank < 1 || rank > kLargestRank)
    fail<ConfigError>("{} must be between 1 and {}, got {}", key, kLargestRank, rank);
}

void check_alpha(const std::string& key, double alpha) {
  if (!(alpha > 0) || !std::isfinite(alpha))
    fail<ConfigError>("{} must be positive, got {}", key, alpha);
}

const std::regex& ending_in(const std::string& key, const std::string& pattern) {
  try {
    return compiled_pattern("(.*\\.)?(" + pattern + ")");
  } catch (const std::regex_error& error) {
    fail<ConfigError>("{}: '{}' is not a valid regular expression ({})", key, pattern,
                      pattern_fault(pattern, error));
  }
}

template <typename Value>
void apply(const char* key, const OrderedMap<Value>& patterns, const std::string& module,
           Value& value) {
  for (const auto& [pattern, chosen] : patterns)
    if (std::regex_match(module, ending_in(key, pattern))) {
      value = chosen;
      return;
    }
}

// What the patterns of ranks and alphas are matched with.
std::string pattern_path(const std::string& module) {
  return is_parameter(module) ? parameter_path(module) : module;
}

// What alpha is divided by.
double divisor(const LoraOptions& options, int64_t rank) {
  const auto r = static_cast<double>(rank);
  return options.use_rslora ? std::sqrt(r) : r;
}

}  // namespace

bool sizes_pattern_matches(const char* key, const std::string& pattern, const std::string& module) {
  return std::regex_match(pattern_path(module), ending_in(key, pattern));
}

bool are_disjoint_names(const std::string& pattern, const std::string& other) {
  constexpr const char* kNotPlain = "*+?[](){}|^$\\";
  if (pattern.find_first_of(kNotPlain) != std::string::npos ||
      other.find_first_of(kNotPlain) != std::string::npos)
    return false;
  // A dot means any character, so that "a.b" ends "axb" too.
  const std::string &longer = pattern.size() < other.size() ? other : pattern,
                    &shorter = pattern.size() < other.size() ? pattern : other;
  return !std::equal(shorter.rbegin(), shorter.rend(), longer.rbegin(),
                     [](char a, char b) { return a == b || a == '.' || b == '.'; });
}

double LoraOptions::scaling() const { return alpha / divisor(*this, rank); }

double LoraOptions::alpha_at_rank(int64_t other_rank) const {
  return alpha * divisor(*this, other_rank) / divisor(*this, rank);
}

LoraOptions LoraOptions::of_module(const std::string& module) const {
  return of_path(pattern_path(module));
}

LoraOptions LoraOptions::of_path(const std::string& path) const {
  LoraOptions own = *this;
  apply("lora.rank_pattern", rank_pattern, path, own.rank);
  apply("lora.alpha_pattern", alpha_pattern, path, own.alpha);
  return own;
}

void LoraOptions::validate() const { require_no_faults(*this); }

void LoraOptions::find_faults(Faults& faults) const {
  faults.collect([&] { check_rank("lora.rank", rank); });
  faults.collect([&] { check_alpha("lora.alpha", alpha); });
  for (const auto& [pattern, value] : rank_pattern) {
    faults.collect([&] { ending_in("lora.rank_pattern", pattern); });
    faults.collect([&] { check_rank("lora.rank_pattern." + pattern, value); });
    faults.collect([&] { check_init(init, value); });
  }
  for (const auto& [pattern, value] : alpha_pattern) {
    faults.collect([&] { ending_in("lora.alpha_pattern", pattern); });
    faults.collect([&] { check_alpha("lora.alpha_pattern." + pattern, value); });
  }
  for (const int64_t layer : layers_to_transform)
    if (layer < 0) faults.add("lora.layers_to_transform: layers count from 0, got {}", layer);
  if (!(dropout >= 0 && dropout < 1)) faults.add("lora.dropout must be in [0, 1), got {}", dropout);
  if (!(plus_lr_ratio > 0) || !std::isfinite(plus_lr_ratio))
    faults.add("lora.plus_lr_ratio must be positive, got {}", plus_lr_ratio);
  if (bias != "none" && bias != "all" && bias != "lora_only")
    faults.add("lora.bias must be none, all or lora_only, got '{}'", bias);
  for (const std::string& module : modules_to_save)
    if (module.empty()) faults.add("lora.modules_to_save: a name is empty");
  for (const auto& [module, ids] : trainable_token_indices)
    if (ids.empty())
      faults.add("lora.trainable_token_indices.{} must name at least one token", module);
  if (dtype != "float32" && dtype != "bfloat16")
    faults.add("lora.dtype must be float32 or bfloat16, found '{}'", dtype);
  if (targets.empty() && target_parameters.empty())
    faults.add("lora.targets must name at least one pattern, e.g. all-linear");
  faults.collect([&] { check_init(init, rank); });
  if (loftq.iterations < 1 || loftq.iterations > 100)
    faults.add("lora.loftq.iterations must be between 1 and 100, got {}", loftq.iterations);
  if (loftq.svd != "randomized" && loftq.svd != "exact")
    faults.add("lora.loftq.svd must be randomized or exact, found '{}'", loftq.svd);
}

}  // namespace qlora::lora
