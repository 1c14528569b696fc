#include "recipes/plan/costly_settings.h"

#include <fmt/format.h>

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

std::vector<std::string> costly_settings(const MachineFacts& facts) {
  std::vector<std::string> sentences;
  if (facts.on_gpu) return sentences;
  const double times = facts.float32_operations_a_second / facts.operations_a_second;
  if (facts.compute_dtype != "float32" && times >= kMuchSlower)
    sentences.push_back(fmt::format(
        "train.compute_dtype {}: products take {:.0f} times as long as in float32 on this CPU "
        "({:.2g} and {:.2g} GFLOP/s); set train.compute_dtype: float32, which takes more memory",
        facts.compute_dtype, times, facts.operations_a_second / 1e9,
        facts.float32_operations_a_second / 1e9));
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
