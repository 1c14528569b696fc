// What the recipe's `optim` section decides. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ordered_map.h"

namespace qlora {
class Faults;
}

namespace qlora::optim {

struct OptimizerOptions {
  std::string name = "paged_adamw_8bit";  // optimizer_names.h
  double lr = 2e-4;
  std::vector<double> betas;  // as many as the rule has; empty: its usual ones
  double eps = 1e-8;
  double alpha = 5.0;      // of ademamix: weight of the slow average
  int64_t alpha_ramp = 0;  // of ademamix: steps in which alpha and beta3 rise to their values
  double weight_decay = 0.0;
  // Of tensors whose PEFT name matches the regex somewhere, instead; the first as written.
  OrderedMap<double> weight_decay_pattern;
  double max_grad_norm = 1.0;       // 0: no clipping
  std::string schedule = "cosine";  // lr_schedule.h
  double min_lr_ratio = 0.0;        // of the cosines, polynomial, wsd, reduce_on_plateau
  int64_t num_cycles = 1;           // of cosine_with_restarts
  double power = 1.0;               // of polynomial
  double decay_ratio = 0.1;         // of wsd
  double plateau_factor = 0.1;      // of reduce_on_plateau
  int64_t plateau_patience = 10;
  double warmup_ratio = 0.0;
  int64_t warmup_steps = 0;          // wins over warmup_ratio if > 0
  bool stochastic_rounding = false;  // of masters in bfloat16 (round.h)
  // Paged: how much optimizer state stays on the device. 0: on a GPU half of the state, on the CPU,
  // whose memory is the host's, all of it. Otherwise at least two pages (a page: the state of up to
  // 262,144 elements of one tensor).
  int64_t paged_resident_bytes = 0;

  const std::vector<double>& betas_in_use() const;
  double weight_decay_of(const std::string& tensor) const;

  // Throws ConfigError naming the key.
  void validate() const;
  // The same, as far as all of it can be told together.
  void find_faults(Faults& faults) const;
};

}  // namespace qlora::optim
