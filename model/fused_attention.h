// Attention by ATen's FlashAttention kernels (Dao 2023), which a GPU has for 16-bit types: one
// launch for all documents, grouped queries without copies of their keys.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "model/attention_call.h"

namespace qlora::model {

bool has_fused_attention(const AttentionShape& shape, at::ScalarType dtype);

at::Tensor fused_attention(const AttentionCall& call);

}  // namespace qlora::model
