#include "recipes/plan/costly_settings.h"

#include <fmt/format.h>

#include <algorithm>

namespace qlora::recipes {
namespace {

constexpr double kMuchSlower = 4;

std::string too_many_threads(const MachineFacts& facts) {
  const std::string cores = facts.ranks == 1
                                ? fmt::format("the run may use {} cores", facts.cores)
                                : fmt::format("each of the {} ranks on this machine has {} cores",
                                              facts.ranks, facts.cores);
  const char* slow = "threads that wait for each other take many times as long";
  if (!facts.goes_on)
    return fmt::format("train.threads is {} and {}: {}; leave train.threads at 0", facts.threads,
                       cores, slow);
  return fmt::format(
      "the run began with {} threads{}, which it keeps so that its bits stay the same, and {}: {}; "
      "go on {}where there are more cores, or start another run with lora.from_adapter",
      facts.threads, facts.ranks == 1 ? "" : " a rank", cores, slow,
      facts.ranks == 1 ? "" : "with fewer ranks on this machine, ");
}

}  // namespace

bool ProductRates::is_costly() const { return in_float32 >= kMuchSlower * in_compute_dtype; }

ProductRates best_rates(const std::function<double()>& in_compute_dtype,
                        const std::function<double()>& in_float32) {
  ProductRates best;
  for (int sample = 0; sample < kMostSamples && best.is_costly(); ++sample) {
    best.in_compute_dtype = std::max(best.in_compute_dtype, in_compute_dtype());
    best.in_float32 = std::max(best.in_float32, in_float32());
  }
  return best;
}

std::vector<std::string> costly_settings(const MachineFacts& facts) {
  std::vector<std::string> sentences;
  if (facts.on_gpu) return sentences;
  const ProductRates& rates = facts.rates;
  if (facts.compute_dtype != "float32" && rates.is_costly())
    sentences.push_back(fmt::format(
        "train.compute_dtype {}: products take {:.0f} times as long as in float32 on this CPU "
        "({:.2g} and {:.2g} GFLOP/s); set train.compute_dtype: float32, which takes more memory",
        facts.compute_dtype, rates.in_float32 / rates.in_compute_dtype,
        rates.in_compute_dtype / 1e9, rates.in_float32 / 1e9));
  if (facts.planned_bytes > facts.free_bytes)
    sentences.push_back(fmt::format(
        "the run is planned to take {:.0f} MB and {:.0f} MB are free: a machine that swaps takes "
        "many times as long, if it does not end the run; qlora plan RECIPE --fit auto says what "
        "fits",
        static_cast<double>(facts.planned_bytes) / 1e6,
        static_cast<double>(facts.free_bytes) / 1e6));
  if (facts.threads > facts.cores) sentences.push_back(too_many_threads(facts));
  return sentences;
}

}  // namespace qlora::recipes
