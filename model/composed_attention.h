// Attention of stock ATen operations, on any device and with autograd's own gradients: what no
// kernel can do. The matrix of scores is kept for the backward pass, document by document.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/attention_call.h"

namespace qlora::model {

at::Tensor composed_attention(const AttentionCall& call);

// Queries at the end of a document that has more keys: q [tokens, heads * head_dim], k, v [keys,
// kv_heads * head_dim], rotated -> like q.
at::Tensor composed_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttentionCall& call);

}  // namespace qlora::model
