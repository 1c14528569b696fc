#include "trainer/rank_plan.h"

#include <algorithm>

#include "distributed/group.h"

namespace qlora::trainer {
namespace {

using distributed::Group;

constexpr int64_t kFloat = 4;

// Bytes of what each rank adds of all ranks' numbers, which are filled up to equal parts.
int64_t part_bytes(int64_t numbers, int64_t ranks) {
  return (numbers + ranks - 1) / ranks * kFloat;
}

}  // namespace

int64_t sum_buffer_bytes(int64_t numbers, int64_t ranks) {
  if (ranks == 1) return 0;
  return 2 * ranks * part_bytes(std::min(numbers, Group::kNumbersAtOnce), ranks);
}

int64_t sum_bytes_sent(int64_t numbers, int64_t ranks) {
  constexpr int64_t kAtOnce = Group::kNumbersAtOnce;
  return 2 * (ranks - 1) *
         (numbers / kAtOnce * part_bytes(kAtOnce, ranks) + part_bytes(numbers % kAtOnce, ranks));
}

RankTime rank_time(double rank_seconds, int64_t step_tokens, int64_t bytes_sent,
                   double bytes_a_second) {
  RankTime time;
  if (bytes_a_second > 0) time.sum_seconds = static_cast<double>(bytes_sent) / bytes_a_second;
  time.seconds_a_step = rank_seconds + time.sum_seconds;
  time.tokens_a_second = static_cast<double>(step_tokens) / time.seconds_a_step;
  return time;
}

}  // namespace qlora::trainer
