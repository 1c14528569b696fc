#include "trainer/gradient_sum.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

namespace qlora::trainer {

namespace {

constexpr int64_t kPiece = 16 << 20;  // numbers that are on their way from the host at a time

// Pinned where the gradients lie on a GPU: the copies to it and back take their turn there, and the
// host, which never reads them, does not wait.
at::Tensor new_level(const at::Tensor& gradients) {
  const auto options = gradients.options().device(at::kCPU);
  return at::empty(gradients.sizes(), options.pinned_memory(!gradients.is_cpu()));
}

}  // namespace

void GradientSum::begin(const at::Tensor& gradients, int64_t micro_batches) {
  if (!gradients_.is_same(gradients)) levels_.clear();
  gradients_ = gradients;
  const auto copies = static_cast<size_t>(most_copies(micro_batches));
  while (levels_.size() < copies) levels_.push_back(new_level(gradients_));
  gradients_.zero_();
  any_ = false;
  set_aside_ = 0;
}

// As one counts in binary: the levels up to the first that is free are carried to it.
void GradientSum::begin_micro_batch() {
  if (!any_) {
    any_ = true;
    return;
  }
  size_t level = 0;
  for (; holds(level); ++level) add(levels_[level]);
  levels_.at(level).copy_(gradients_, /*non_blocking=*/true);
  gradients_.zero_();
  ++set_aside_;
}

void GradientSum::finish() {
  for (size_t level = 0; level < levels_.size(); ++level)
    if (holds(level)) add(levels_[level]);
  set_aside_ = 0;
}

void GradientSum::add(const at::Tensor& level) {
  const int64_t count = gradients_.numel();
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    const int64_t length = std::min(kPiece, count - begin);
    gradients_.narrow(0, begin, length)
        .add_(level.narrow(0, begin, length).to(gradients_.device(), /*non_blocking=*/true));
  }
}

int64_t GradientSum::most_copies(int64_t micro_batches) {
  return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(micro_batches, 1) - 1));
}

}  // namespace qlora::trainer
