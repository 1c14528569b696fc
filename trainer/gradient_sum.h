// The gradients of a window, added in pairs: ((g0 + g1) + (g2 + g3)) + ..., whoever computed them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qlora::trainer {

// Adds micro-batches in the order of a balanced tree. One rank with all of a window, and ranks with
// 2^k micro-batches each whose sums distributed::Group::sum() adds, make the same additions, to the
// same bits. Holds one copy of the gradients for each level of the tree that waited for a
// neighbour, in the host's memory where the gradients lie on a GPU. One object serves all windows
// of a run, and makes its copies where the first window begins: amid the tensors of a pass they
// would leave holes in the memory that no later tensor fills.
class GradientSum {
 public:
  // Starts a window of at most `micro_batches`, before the first forward pass. `gradients`:
  // [parameters], fp32, where the backward passes add up; zeroed here.
  void begin(const at::Tensor& gradients, int64_t micro_batches);
  // Before each micro-batch's backward pass: puts aside what the one before it left, if there was
  // one, and zeroes the buffer.
  void begin_micro_batch();
  // Leaves the sum of all micro-batches in the buffer.
  void finish();

  // Copies of the gradients that windows of so many micro-batches leave here.
  static int64_t most_copies(int64_t micro_batches);

 private:
  void add(const at::Tensor& level);
  bool holds(size_t level) const { return (set_aside_ >> level & 1) != 0; }

  at::Tensor gradients_;
  bool any_ = false;                // a micro-batch has left its gradients in the buffer
  int64_t set_aside_ = 0;           // micro-batches before it
  std::vector<at::Tensor> levels_;  // sums of 1, 2, 4, ... of these
};

}  // namespace qlora::trainer
