// Attention on the CPU, with a backward pass of its own: by the bf16 kernels of
// flash_attention_kernels.h, or in fp32 by those of float_attention_kernels.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/attention_call.h"

namespace qlora::model {

// bf16, on a processor and with heads that cpu::supports_flash_avx512.
at::Tensor flash_attention_on_cpu(const AttentionCall& call);

// Any type: tensors that are not fp32 are copied to it.
at::Tensor float_attention_on_cpu(const AttentionCall& call);

// Queries at the end of a document that has `keys` keys, without gradient: q [tokens, heads *
// head_dim], k, v [keys, kv_heads * head_dim], rotated -> like q.
at::Tensor continue_on_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionCall& call);

}  // namespace qlora::model
