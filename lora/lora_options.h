// What the recipe's `lora` section decides. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/ordered_map.h"

namespace qlora {
class Faults;
}

namespace qlora::lora {

// Of init: loftq (Li et al. 2023).
struct LoftqOptions {
  int64_t iterations = 5;          // alternating steps; the best one is kept
  std::string svd = "randomized";  // randomized | exact
  std::string original;            // 16-bit weights of a base that is stored quantized
};

struct LoraOptions {
  int64_t rank = 16;
  double alpha = 32.0;  // over rank: the factor on what the adapter adds, scaling()
  double dropout = 0.0;
  std::vector<std::string> targets = {
      "all-linear"};  // or module names, or patterns (regex on the module path)
  // Experts and routers (expert_names.h), by the end of their path: "gate_up_proj", "gate.weight".
  std::vector<std::string> target_parameters;
  std::vector<std::string> exclude_modules;  // matched like targets; these get no adapter
  std::vector<int64_t> layers_to_transform;  // only these decoder layers; empty: all
  // Rank and alpha of modules whose path ends in a match of the regex (whole components, the first
  // key as written that does, as PEFT).
  OrderedMap<int64_t> rank_pattern;
  OrderedMap<double> alpha_pattern;
  std::string init = "default";  // initial_factors.h, weight_init.h
  LoftqOptions loftq;
  bool use_dora = false;      // a trained magnitude for each output (lora_linear.h)
  std::string bias = "none";  // trained biases: none | all | lora_only (of adapted layers)
  // Trained whole beside the adapters, by the end of the module path (whole_modules.h).
  std::vector<std::string> modules_to_save;
  // Rows that are trained of embed_tokens, lm_head or both: tokens by module.
  std::map<std::string, std::vector<int64_t>> trainable_token_indices;
  // Tokens of embed_tokens by their spelling; a recipe turns them into indices.
  std::vector<std::string> trainable_tokens;
  bool ensure_weight_tying = false;  // tied embeddings that are trained stay one matrix
  std::string dtype = "float32";     // of the masters: float32 | bfloat16 (optim/round.h)
  bool use_rslora = false;           // scaling alpha / sqrt(rank) instead of alpha / rank
  double plus_lr_ratio = 1.0;        // LoRA+: B learns at this multiple of the rate
  std::string from_adapter;          // a PEFT adapter directory to continue from; empty: none

  // Factor on B A x (LoRA section 4.1; rsLoRA, Kalajdzievski 2023).
  double scaling() const;
  // The alpha with which an adapter of another rank has the scaling of these.
  double alpha_at_rank(int64_t other_rank) const;
  // These options with rank and alpha as the patterns give them to one module; experts and routers
  // by parameter_path().
  LoraOptions of_module(const std::string& module) const;
  // ... to a module of this very path.
  LoraOptions of_path(const std::string& path) const;
  // Throws ConfigError naming the key.
  void validate() const;
  // The same, as far as all of it can be told together.
  void find_faults(Faults& faults) const;
};

// Whether a pattern of rank_pattern or alpha_pattern, as `key` names the one in errors, means the
// module.
bool sizes_pattern_matches(const char* key, const std::string& pattern, const std::string& module);

// Whether two such keys are known to mean no module in common: plain names, neither of which ends
// in the other.
bool are_disjoint_names(const std::string& pattern, const std::string& other);

}  // namespace qlora::lora
