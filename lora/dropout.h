// Dropout whose mask is a pure function of a key, so that the backward pass and a recomputed layer
// draw it again instead of keeping it. An element has 16 bits of a Philox block (base/philox.h),
// number 128 g + 32 w + 2 j + s those of half s of word w of block 16 g + j, an order in which
// vectors of blocks give vectors of elements. It is dropped if they are below 2^16 p, rounded, and
// else scaled by 1 / (1 - p).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lora/forward_context.h"
#include "lora/lora_linear.h"

namespace qlora::lora {

// A new tensor like x (contiguous; bf16, fp16 or fp32). p in [0, 1).
at::Tensor dropout(const at::Tensor& x, double p, uint64_t key);
// The same, and with its mask sum += dropout(z): z, sum contiguous, like x.
at::Tensor dropout(const at::Tensor& x, double p, uint64_t key, const at::Tensor& z,
                   const at::Tensor& sum);

// Whether an adapter's input is dropped in this pass, under which key, and the dropped input.
bool drops(const Adapter& adapter, const ForwardContext& context);
uint64_t mask_key(const Adapter& adapter, const ForwardContext& context);
at::Tensor dropped(const at::Tensor& x, const Adapter& adapter, const ForwardContext& context);

}  // namespace qlora::lora
