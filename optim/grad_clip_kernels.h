// Sums of squares of grad_clip.h on raw pointers.
#pragma once

#include <cstdint>

namespace qlora::optim {

constexpr int64_t kNormBlock = 16384;
constexpr int64_t num_norm_blocks(int64_t count) { return (count + kNormBlock - 1) / kNormBlock; }

// sums[b] = sum of squares of block b.
namespace cpu {
void block_sums_of_squares(const float* values, int64_t count, double* sums);
}
namespace cuda {
void block_sums_of_squares(const float* values, int64_t count, double* sums, void* stream);
}

}  // namespace qlora::optim
