#include <algorithm>

#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "optim/grad_clip_kernels.h"

namespace qlora::optim::cpu {
namespace {

QLORA_VECTORIZED double sum_of_squares(const float* values, int64_t count) {
  double lanes[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const double x = values[i + lane];
      lanes[lane] += x * x;
    }
  for (int64_t i = whole; i < count; ++i) {
    const double x = values[i];
    lanes[i - whole] += x * x;
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void block_sums_of_squares(const float* values, int64_t count, double* sums) {
  parallel_for(num_norm_blocks(count), 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      sums[b] =
          sum_of_squares(values + b * kNormBlock, std::min(kNormBlock, count - b * kNormBlock));
  });
}

}  // namespace qlora::optim::cpu
