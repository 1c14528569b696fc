// Causal language-model loss with the head fused in: cross entropy of head(hidden) at supervised
// positions only, in chunks of rows, so that no [tokens, vocab] tensor ever exists. The gradient
// towards `hidden` is made in the forward pass, chunk by chunk, while the logits are at hand; the
// head itself is frozen and gets none.
//
//   loss = Σ_supervised -log softmax(hidden_i Wᵀ)[target_i] · scale,   scale = 1 / supervised
//   tokens of the whole step
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "quant/frozen_weight.h"

namespace qlora::trainer {

// hidden [tokens, hidden] in the compute dtype; targets: one per token, -100 where nothing is
// supervised. Returns a scalar fp32 tensor, differentiable towards hidden. No supervised target
// gives 0, not NaN.
at::Tensor fused_cross_entropy(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                               const quant::FrozenWeight& head, double scale,
                               quant::Workspace& workspace);

// The negative log-likelihood (nats) of each supervised target, in order; no gradient.
std::vector<float> token_losses(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                                const quant::FrozenWeight& head, quant::Workspace& workspace);

}  // namespace qlora::trainer
