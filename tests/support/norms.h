// Norms of Llama's kind, of tensors alone.
#pragma once

#include "model/norm.h"

namespace qlora::test {

// A weight that is trained where `gradient` is defined.
inline lora::NormWeight norm_weight(const at::Tensor& weight, const at::Tensor& gradient = {}) {
  lora::NormWeight norm(weight);
  if (gradient.defined())
    norm.trained = std::make_unique<lora::TrainedTensor>(lora::TrainedTensor{weight, gradient, {}});
  return norm;
}

inline model::NormOutput add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                                      const at::Tensor& weight, double eps, at::ScalarType compute,
                                      const at::Tensor& gradient = {}) {
  return model::add_norm(residual, delta, norm_weight(weight, gradient),
                         {model::NormKind::kRms, eps}, compute, true);
}

}  // namespace qlora::test
