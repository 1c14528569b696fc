#include "optim/optimizer_options.h"

#include <cmath>
#include <regex>

#include "base/compiled_pattern.h"
#include "base/faults.h"
#include "optim/lr_schedule.h"
#include "optim/optimizer_names.h"

namespace qlora::optim {
namespace {

// NaN fails every comparison, hence "must hold" rather than "must not".
void in_range(Faults& faults, const char* key, double value, bool holds, const char* range) {
  if (!holds || !std::isfinite(value)) faults.add("optim.{} must be {}, got {}", key, range, value);
}

}  // namespace

const std::vector<double>& OptimizerOptions::betas_in_use() const {
  return betas.empty() ? optimizer_kind(name).betas : betas;
}

double OptimizerOptions::weight_decay_of(const std::string& tensor) const {
  for (const auto& [pattern, value] : weight_decay_pattern)
    if (std::regex_search(tensor, compiled_pattern(pattern))) return value;
  return weight_decay;
}

void OptimizerOptions::validate() const { require_no_faults(*this); }

void OptimizerOptions::find_faults(Faults& faults) const {
  const OptimizerKind* kind = nullptr;
  faults.collect([&] { kind = &optimizer_kind(name); });
  if (kind != nullptr && !betas.empty() && kind->betas.empty())
    faults.add("optim.betas: {} has none; leave it out", name);
  else if (kind != nullptr && !betas.empty() && betas.size() != kind->betas.size())
    faults.add("optim.betas must be {} numbers for {}, got {}", kind->betas.size(), name,
               betas.size());
  in_range(faults, "lr", lr, lr >= 0, "a number >= 0");
  for (const double beta : betas)
    in_range(faults, "betas", beta, beta >= 0 && beta < 1, "numbers in [0, 1)");
  in_range(faults, "alpha", alpha, alpha >= 0, "a number >= 0");
  if (alpha_ramp < 0) faults.add("optim.alpha_ramp must be >= 0, got {}", alpha_ramp);
  if (alpha_ramp > 0 && kind != nullptr && kind->rule == Rule::kAdemamix)
    for (const double beta : betas_in_use())
      in_range(faults, "betas", beta, beta > 0, "above 0 with optim.alpha_ramp");
  // eps is added to a fp32 root: a value that rounds to zero there would divide by zero.
  in_range(faults, "eps", eps, static_cast<float>(eps) > 0, "a positive fp32 number");
  in_range(faults, "weight_decay", weight_decay, weight_decay >= 0, "a number >= 0");
  in_range(faults, "lr * optim.weight_decay", lr * weight_decay, lr * weight_decay <= 1,
           "at most 1, or decay turns the sign of the weights");
  for (const auto& [pattern, value] : weight_decay_pattern) {
    try {
      compiled_pattern(pattern);
    } catch (const std::regex_error& error) {
      faults.add("optim.weight_decay_pattern: '{}' is not a valid regular expression ({})", pattern,
                 pattern_fault(pattern, error));
    }
    in_range(faults, "weight_decay_pattern", value, value >= 0 && lr * value <= 1,
             "numbers >= 0, times optim.lr at most 1");
  }
  in_range(faults, "plateau_factor", plateau_factor, plateau_factor > 0 && plateau_factor < 1,
           "a number between 0 and 1");
  if (plateau_patience < 0)
    faults.add("optim.plateau_patience must be >= 0, got {}", plateau_patience);
  in_range(faults, "max_grad_norm", max_grad_norm, max_grad_norm >= 0,
           "a number >= 0 (0: no clipping)");
  faults.collect([&] { check_schedule_name(schedule); });
  in_range(faults, "min_lr_ratio", min_lr_ratio, min_lr_ratio >= 0 && min_lr_ratio <= 1,
           "a number in [0, 1]");
  if (num_cycles < 1) faults.add("optim.num_cycles must be at least 1, got {}", num_cycles);
  in_range(faults, "power", power, power > 0, "a number above 0");
  in_range(faults, "decay_ratio", decay_ratio, decay_ratio >= 0 && decay_ratio <= 1,
           "a number in [0, 1]");
  in_range(faults, "warmup_ratio", warmup_ratio, warmup_ratio >= 0 && warmup_ratio <= 1,
           "a number in [0, 1]");
  if (warmup_steps < 0) faults.add("optim.warmup_steps must be >= 0, got {}", warmup_steps);
  if (paged_resident_bytes < 0)
    faults.add("optim.paged_resident_bytes must be >= 0 (0: chosen by the program), got {}",
               paged_resident_bytes);
}

}  // namespace qlora::optim
