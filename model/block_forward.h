// One block of a model, forward: the interpreter of model/block_spec.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "lora/forward_context.h"
#include "model/attention.h"
#include "model/block.h"

namespace qlora::model {

// The residual stream, fp32 [tokens, hidden], and what is still to be added to it: undefined, or of
// the compute dtype. The next norm adds it on its way.
struct Stream {
  at::Tensor residual, delta;

  at::Tensor sum() const;
  bool requires_grad() const;
};

// What the blocks of a pass share.
struct BlockPass {
  AttentionContext attention;
  AttentionContext cross = {};        // of cross-attention, whose cache is attention's
  std::vector<RotaryTable> rotaries;  // as Architecture::rotaries
  // fp32 [tokens, 1] by Architecture::query_scaling; undefined where all are 1.
  at::Tensor query_factors;
  at::ScalarType compute;
  bool narrow_gates = false;  // CausalLm::narrow_gates
};

// `layer` indexes the cache. `output_unused`: of what is returned only the gradient counts, its
// values are unspecified. `encoded`: the encoder's output, [its tokens, hidden] in the compute
// dtype, for cross-attention; undefined where the cache has what becomes of it.
Stream block_forward(const BlockSpec& spec, const Block& block, int64_t layer, Stream stream,
                     const BlockPass& pass, const lora::ForwardContext& context,
                     bool output_unused = false, const at::Tensor& encoded = {});

}  // namespace qlora::model
