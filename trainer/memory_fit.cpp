#include "trainer/memory_fit.h"

#include <algorithm>

#include "optim/optimizer_names.h"

namespace qlora::trainer {
namespace {

// The optimizer with its state on the host but for two pages; those of lamb cannot be paged.
std::vector<optim::OptimizerOptions> optimizers_to_try(const PlannedRun& run) {
  std::vector<optim::OptimizerOptions> all = {run.optim};
  if (!run.on_gpu || run.optim.name == "lamb") return all;
  optim::OptimizerOptions paged = run.optim;
  if (!optim::optimizer_kind(paged.name).paged) paged.name = "paged_" + paged.name;
  // Two pages of the largest state there is: up to 262,144 elements in three float32 states.
  constexpr int64_t kResident = 2 * 3 * 4 * 262'144 + 4096;
  paged.paged_resident_bytes = kResident;
  all.push_back(paged);
  return all;
}

}  // namespace

MemoryFit fit_memory(const PlannedRun& run, int64_t gradient_accumulation_steps, int64_t limit) {
  const int64_t product = run.micro_batch_size * gradient_accumulation_steps;
  MemoryFit least;
  for (const bool recompute : {false, true})
    for (int64_t rows = product; rows >= 1; --rows) {
      if (product % rows != 0) continue;
      for (const optim::OptimizerOptions& optimizer : optimizers_to_try(run)) {
        MemoryFit candidate{run, product / rows, {}, false};
        candidate.run.micro_batch_size = rows;
        candidate.run.recompute_layers = recompute;
        candidate.run.optim = optimizer;
        candidate.plan = plan_memory(candidate.run);
        candidate.fits = candidate.plan.peak() <= limit;
        if (candidate.fits) return candidate;
        if (least.plan.lines.empty() || candidate.plan.peak() < least.plan.peak())
          least = candidate;
      }
    }
  return least;
}

bool choose_recomputation(const std::string& option, PlannedRun run, int64_t free_bytes) {
  if (option != "auto") return option == "true";
  run.recompute_layers = false;
  const auto usable = static_cast<int64_t>(kUsableShare * static_cast<double>(free_bytes));
  return plan_memory(run).after_loading() > usable;
}

}  // namespace qlora::trainer
