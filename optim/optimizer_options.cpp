#include "optim/optimizer_options.h"

#include <cmath>

#include "base/error.h"
#include "optim/lr_schedule.h"
#include "optim/optimizer_names.h"

namespace qlora::optim {
namespace {

// NaN fails every comparison, hence "must hold" rather than "must not".
void in_range(const char* key, double value, bool holds, const char* range) {
  if (!holds || !std::isfinite(value))
    fail<ConfigError>("optim.{} must be {}, got {}", key, range, value);
}

}  // namespace

void OptimizerOptions::validate() const {
  optimizer_kind(name);
  in_range("lr", lr, lr >= 0, "a number >= 0");
  in_range("betas", beta1, beta1 >= 0 && beta1 < 1, "two numbers in [0, 1)");
  in_range("betas", beta2, beta2 >= 0 && beta2 < 1, "two numbers in [0, 1)");
  // eps is added to a fp32 root: a value that rounds to zero there would divide by zero.
  in_range("eps", eps, static_cast<float>(eps) > 0, "a positive fp32 number");
  in_range("weight_decay", weight_decay, weight_decay >= 0, "a number >= 0");
  in_range("lr * optim.weight_decay", lr * weight_decay, lr * weight_decay <= 1,
           "at most 1, or decay turns the sign of the weights");
  in_range("max_grad_norm", max_grad_norm, max_grad_norm >= 0, "a number >= 0 (0: no clipping)");
  check_schedule_name(schedule);
  in_range("min_lr_ratio", min_lr_ratio, min_lr_ratio >= 0 && min_lr_ratio <= 1,
           "a number in [0, 1]");
  if (num_cycles < 1) fail<ConfigError>("optim.num_cycles must be at least 1, got {}", num_cycles);
  in_range("power", power, power > 0, "a number above 0");
  in_range("decay_ratio", decay_ratio, decay_ratio >= 0 && decay_ratio <= 1, "a number in [0, 1]");
  in_range("warmup_ratio", warmup_ratio, warmup_ratio >= 0 && warmup_ratio <= 1,
           "a number in [0, 1]");
  if (warmup_steps < 0) fail<ConfigError>("optim.warmup_steps must be >= 0, got {}", warmup_steps);
  if (paged_resident_bytes < 0)
    fail<ConfigError>("optim.paged_resident_bytes must be >= 0 (0: chosen by the program), got {}",
                      paged_resident_bytes);
}

}  // namespace qlora::optim
