// Tensors as the kernels of float_product_kernels.h take them.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/products/float_product_kernels.h"

namespace qlora::quant {

// scale a b; a, b 2-D of any floating type, each contiguous in one of its dimensions.
cpu::FloatTerm float_term(const at::Tensor& a, const at::Tensor& b, double scale);

// The target of such terms, with none yet. `onto` is undefined or fp32 and lies as `out` does.
cpu::FloatProduct float_product_to(const at::Tensor& out, bool accumulate,
                                   const at::Tensor& onto = {});

}  // namespace qlora::quant
