// What ops ask of tensors before they hand raw pointers to kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "quant/elements/element_type.h"

namespace qlora::quant {

// fp32, bf16 or fp16; anything else is an Error that begins with `op`.
ElementType element_type(const at::Tensor& tensor, const char* op);

// Throws Error unless every block scale is finite, naming the first element of `source` (which the
// message calls `name`) that is an infinity or NaN. A kernel leaves such a scale in the block that
// holds one.
void check_finite_blocks(const at::Tensor& absmax, const at::Tensor& source, const char* op,
                         const std::string& name = "the input");

}  // namespace qlora::quant
