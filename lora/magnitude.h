// DoRA (Liu et al. 2024): a layer's product is that of its weight and adapter, z, times a factor
// magnitude / norm for each output feature. The norm is taken as a constant by the gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include "lora/forward_context.h"
#include "lora/lora_linear.h"

namespace qlora::lora {

// y [tokens, out], which holds x Wᵀ, becomes what DoRA makes of it, h [tokens, rank] being the
// adapter's low-rank input. Gives z, which the backward pass needs. With dropout z is that of the
// dropped x, and only what the factor changes of it is added to x Wᵀ, as PEFT does it.
at::Tensor apply_magnitude(const LoraLinear& layer, const at::Tensor& x, const at::Tensor& h,
                           at::Tensor& y, const ForwardContext& context);
// The gradient towards z, of dy towards the product; adds the magnitude's own.
at::Tensor gradient_through_magnitude(const LoraLinear& layer, const at::Tensor& dy,
                                      const at::Tensor& z);

}  // namespace qlora::lora
