// A number that a GPU may still be computing. Asking for it too early keeps the host from queueing
// what comes behind it, and the GPU then has nothing to do while the host goes on.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::trainer {

class LateNumber {
 public:
  LateNumber(double value = 0) : value_(value) {}
  // scalar / divisor, not known yet.
  LateNumber(const at::Tensor& scalar, double divisor)
      : scalar_(scalar.detach()), divisor_(divisor) {}

  bool is_known() const { return !scalar_.defined(); }
  // Waits for the device if it is not known yet.
  double get() {
    if (is_known()) return value_;
    value_ = scalar_.item<double>() / divisor_;
    scalar_.reset();
    return value_;
  }

 private:
  at::Tensor scalar_;  // undefined once it is known
  double divisor_ = 1, value_ = 0;
};

}  // namespace qlora::trainer
