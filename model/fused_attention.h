// Attention by ATen's FlashAttention kernels (Dao 2023), which a GPU has for 16-bit types: one
// launch for all documents, grouped queries without copies of their keys.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/attention.h"

namespace qlora::model {

bool has_fused_attention(const at::Tensor& q, const AttentionShape& shape);

// As attention() without a cache: q and k are rotated where they lie.
at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionShape& shape, const AttentionContext& context);

}  // namespace qlora::model
