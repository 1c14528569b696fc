// The names a recipe may give in optim.name, and what other tools call the same thing.
#pragma once

#include <string>

namespace qlora::optim {

struct OptimizerKind {
  const char* name;
  int state_bits;  // 32 or 8
  bool paged;
};

// ConfigError that lists the known names and, for a name of another tool, says which of them it is
// here.
const OptimizerKind& optimizer_kind(const std::string& name);

}  // namespace qlora::optim
