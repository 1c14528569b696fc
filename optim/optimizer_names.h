// The names a recipe may give in optim.name, and what other tools call the same thing.
#pragma once

#include <string>
#include <vector>

#include "optim/update_rule.h"

namespace qlora::optim {

struct OptimizerKind {
  std::string name;
  Rule rule;
  int state_bits;  // 32 or 8
  bool paged;
  std::vector<double> betas;  // the rule's usual ones, as many as it has
};

// Every rule comes as NAME, NAME_8bit, paged_NAME and paged_NAME_8bit; lamb, whose step depends on
// the whole tensor, as itself only. ConfigError that lists the known names and, for a name of
// another tool, says which of them it is here.
const OptimizerKind& optimizer_kind(const std::string& name);

// What a name of transformers, bitsandbytes or PyTorch ("adamw_bnb_8bit", "torch.optim.AdamW") is
// called here; empty if nothing.
std::string optimizer_name_here(const std::string& name);

// "adamw | adam | ...": the names without what stands before and behind them, as the reference page
// lists them.
std::string optimizer_families();

}  // namespace qlora::optim
