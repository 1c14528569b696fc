// Clipping by the global L2 norm over the flat gradient buffer, as torch.nn.utils.clip_grad_norm_
// defines it:
//
//   norm = sqrt(sum g^2);   scale = min(1, max_norm / (norm + 1e-6))
//
// The scale is not applied here: the optimizer multiplies it in while it reads the gradients
// anyway.
//
// Sums are taken in double over blocks of 16,384 elements, each with the same 16 lanes, and the
// blocks are added in order: the norm has the same bits for every number of threads and every
// instruction set. A fp32 square cannot overflow a double, so the norm is finite exactly if all
// gradients are.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "optim/optimizer.h"

namespace qlora::optim {

struct GradientNorm {
  double norm = 0;   // before clipping; infinity or NaN if a gradient is
  double scale = 1;  // for Optimizer::step; 0 if the norm is not finite
  bool finite() const;
};

// flat: fp32, contiguous. max_norm 0: no clipping, scale 1. On a GPU this waits for the device.
GradientNorm gradient_norm(const at::Tensor& flat, double max_norm);

// The first parameter whose gradient holds an infinity or NaN; empty if none does. For the message
// when norm is not finite.
std::string first_nonfinite_gradient(const std::vector<Parameter>& parameters);

}  // namespace qlora::optim
