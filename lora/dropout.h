// Dropout whose mask is a pure function of a key, so that the backward pass and a recomputed layer
// draw it again instead of keeping it: element i survives if uniform(key, i) >= p and is then
// scaled by 1 / (1 - p).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lora/forward_context.h"
#include "lora/lora_linear.h"

namespace qlora::lora {

// A new tensor like x (contiguous; bf16, fp16 or fp32). p in [0, 1).
at::Tensor dropout(const at::Tensor& x, double p, uint64_t key);

// Whether an adapter's input is dropped in this pass, under which key, and the dropped input.
bool drops(const Adapter& adapter, const ForwardContext& context);
uint64_t mask_key(const Adapter& adapter, const ForwardContext& context);
at::Tensor dropped(const at::Tensor& x, const Adapter& adapter, const ForwardContext& context);

}  // namespace qlora::lora
