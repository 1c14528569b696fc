#include "trainer/memory_fit.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "optim/optimizer_names.h"

namespace qlora::trainer {
namespace {

using model::RecomputedLayers;

// What recomputing all layers adds to a step (measured on a CPU), and what a micro-batch costs
// beside its tokens, in tokens: measured on a CPU, assumed on a GPU.
constexpr double kRecomputation = 0.25, kCpuOverhead = 16, kGpuOverhead = 256;

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

RecomputedLayers first_of(int64_t count, int64_t num_layers) {
  return count == num_layers ? RecomputedLayers(true) : RecomputedLayers::first(count);
}

// Recomputed layers, and whether the run fits with them.
struct Recomputation {
  RecomputedLayers layers;
  bool fits = false;
};

// The fewest with which what `taken` says of the run's plan is at most `limit`; else those with
// which it is least.
template <typename Taken>
Recomputation fewest_recomputed(PlannedRun run, const Taken& taken, int64_t limit) {
  const int64_t num_layers = run.architecture.num_layers();
  const auto with = [&](int64_t count) {
    run.recompute_layers = first_of(count, num_layers);
    return taken(plan_memory(run));
  };
  if (with(0) <= limit) return {RecomputedLayers(), true};
  // Each layer more takes less, as long as the others keep more than a recomputed one has at once:
  // the last of them may add no more than its input.
  int64_t low = 0, high = num_layers;
  int64_t least = with(high);
  for (int64_t next = with(high - 1); high > 1 && next <= least; next = with(high - 1)) {
    least = next;
    --high;
  }
  if (least > limit) return {first_of(high, num_layers), false};
  while (high - low > 1) {  // too few, enough
    const int64_t middle = (low + high) / 2;
    (with(middle) <= limit ? high : low) = middle;
  }
  return {first_of(high, num_layers), true};
}

// Of a step, in tokens that pass once.
double cost(const MemoryFit& fit) {
  const double overhead = fit.run.on_gpu ? kGpuOverhead : kCpuOverhead;
  const auto layers = static_cast<double>(fit.run.architecture.num_layers());
  const auto recomputed =
      static_cast<double>(fit.run.recompute_layers.count(fit.run.architecture.num_layers()));
  return static_cast<double>(fit.gradient_accumulation_steps) *
         (static_cast<double>(fit.run.tokens()) + overhead) *
         (1 + kRecomputation * recomputed / layers);
}

bool is_better(const MemoryFit& a, const MemoryFit& b) {
  if (a.fits != b.fits) return a.fits;
  return a.fits ? cost(a) < cost(b) : a.plan.peak() < b.plan.peak();
}

}  // namespace

MemoryFit fit_memory(const PlannedRun& run, int64_t gradient_accumulation_steps, int64_t limit) {
  check(gradient_accumulation_steps % run.ranks == 0,
        "fit_memory: {} micro-batches are no equal parts for {} ranks", gradient_accumulation_steps,
        run.ranks);
  const int64_t product = run.micro_batch_size * gradient_accumulation_steps;
  const auto peak = [](const MemoryPlan& plan) { return plan.peak(); };
  MemoryFit best;
  for (int64_t rows = product; rows >= 1; --rows) {
    if (product % rows != 0 || product / rows % run.ranks != 0) continue;
    for (const optim::OptimizerOptions& optimizer : optimizers_to_try(run)) {
      MemoryFit candidate{run, product / rows, {}, false};
      candidate.run.micro_batch_size = rows;
      candidate.run.micro_batches_a_rank = product / rows / run.ranks;
      candidate.run.optim = optimizer;
      const Recomputation fewest = fewest_recomputed(candidate.run, peak, limit);
      candidate.run.recompute_layers = fewest.layers;
      candidate.plan = plan_memory(candidate.run);
      candidate.fits = fewest.fits;
      if (best.plan.lines.empty() || is_better(candidate, best)) best = candidate;
    }
  }
  return best;
}

RecomputedLayers recomputed_layers(const std::string& option, int64_t num_layers) {
  if (option == "true") return true;
  if (option == "false" || option == "auto") return false;
  int64_t count = 0;
  const char* end = option.data() + option.size();
  const auto [stopped, error] = std::from_chars(option.data(), end, count);
  if (error != std::errc() || stopped != end || count < 0 || count > num_layers)
    fail<ConfigError>(
        "train.gradient_checkpointing must be auto, true, false or how many of the model's {} "
        "layers are recomputed, found '{}'",
        num_layers, option);
  return first_of(count, num_layers);
}

RecomputedLayers choose_recomputation(const std::string& option, const PlannedRun& run,
                                      int64_t free_bytes) {
  if (option != "auto") return recomputed_layers(option, run.architecture.num_layers());
  const auto usable = static_cast<int64_t>(kUsableShare * static_cast<double>(free_bytes));
  const auto to_come = [](const MemoryPlan& plan) { return plan.after_loading(); };
  return fewest_recomputed(run, to_come, usable).layers;
}

}  // namespace qlora::trainer
