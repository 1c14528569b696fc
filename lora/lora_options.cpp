#include "lora/lora_options.h"

#include <cmath>

#include "base/error.h"
#include "lora/initial_factors.h"

namespace qlora::lora {

double LoraOptions::scaling() const {
  const auto r = static_cast<double>(rank);
  return use_rslora ? alpha / std::sqrt(r) : alpha / r;
}

void LoraOptions::validate() const {
  if (rank < 1 || rank > 4096)
    fail<ConfigError>("lora.rank must be between 1 and 4096, got {}", rank);
  if (!(alpha > 0) || !std::isfinite(alpha))
    fail<ConfigError>("lora.alpha must be positive, got {}", alpha);
  if (!(dropout >= 0 && dropout < 1))
    fail<ConfigError>("lora.dropout must be in [0, 1), got {}", dropout);
  if (!(plus_lr_ratio > 0) || !std::isfinite(plus_lr_ratio))
    fail<ConfigError>("lora.plus_lr_ratio must be positive, got {}", plus_lr_ratio);
  if (targets.empty())
    throw ConfigError("lora.targets must name at least one pattern, e.g. all-linear");
  check_init(init, rank);
  if (loftq.iterations < 1 || loftq.iterations > 100)
    fail<ConfigError>("lora.loftq.iterations must be between 1 and 100, got {}", loftq.iterations);
  if (loftq.svd != "randomized" && loftq.svd != "exact")
    fail<ConfigError>("lora.loftq.svd must be randomized or exact, found '{}'", loftq.svd);
}

}  // namespace qlora::lora
