// What the recipe's `optim` section decides. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <string>

namespace qlora::optim {

struct OptimizerOptions {
  std::string name = "paged_adamw_8bit";  // adamw | adamw_8bit | paged_adamw | paged_adamw_8bit
  double lr = 2e-4;
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;  // 0: no clipping
  std::string schedule = "cosine";  // constant | linear | cosine
  double warmup_ratio = 0.0;
  int64_t warmup_steps = 0;  // wins over warmup_ratio if > 0
  int64_t paged_resident_bytes = 0;  // paged: device arena for optimizer state; 0: half of the state, at least one tensor

  // Throws ConfigError naming the key.
  void validate() const;
};

}  // namespace qlora::optim
