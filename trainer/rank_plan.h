// What training on several ranks costs besides: the memory and the time of adding the ranks'
// gradients after each step's last backward pass (distributed::Group::sum).
#pragma once

#include <cstdint>

namespace qlora::trainer {

// The two buffers that a rank keeps for sums of so many float32 numbers, which hold no more than
// Group::kNumbersAtOnce each. 0 with one rank.
int64_t sum_buffer_bytes(int64_t numbers, int64_t ranks);

// What a rank sends for such a sum, and as much it receives: in an all-to-all its numbers but for
// the part that it adds itself, in an all-gather that part to all others, together
// 2 (N-1)/N of 4 bytes a number.
int64_t sum_bytes_sent(int64_t numbers, int64_t ranks);

// A step of all ranks: what each computes, then the sum, which nothing hides.
struct RankTime {
  double sum_seconds = 0;      // by the bandwidth alone
  double seconds_a_step = 0;   // with the sum
  double tokens_a_second = 0;  // of all ranks together
};

// `rank_seconds`: of what a rank computes in a step, `step_tokens`: of all ranks.
// `bytes_a_second`: each way; 0: the sum counts as nothing.
RankTime rank_time(double rank_seconds, int64_t step_tokens, int64_t bytes_sent,
                   double bytes_a_second);

}  // namespace qlora::trainer
