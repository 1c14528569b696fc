#include "trainer/gradient_sum.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

namespace qlora::trainer {

GradientSum::GradientSum(const at::Tensor& gradients) : gradients_(gradients) {
  gradients_.zero_();
}

// As one counts in binary: the levels up to the first that is free are carried to it.
void GradientSum::begin_micro_batch() {
  if (!any_) {
    any_ = true;
    return;
  }
  size_t level = 0;
  for (; holds(level); ++level) at::add_out(gradients_, levels_[level], gradients_);
  if (level == levels_.size()) levels_.push_back(at::empty_like(gradients_));
  levels_[level].copy_(gradients_);
  gradients_.zero_();
  ++set_aside_;
}

void GradientSum::finish() {
  for (size_t level = 0; level < levels_.size(); ++level)
    if (holds(level)) at::add_out(gradients_, levels_[level], gradients_);
  set_aside_ = 0;
}

int64_t GradientSum::most_copies(int64_t micro_batches) {
  return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(micro_batches, 1) - 1));
}

}  // namespace qlora::trainer
