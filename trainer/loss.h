// Causal language-model loss with the head fused in: cross entropy of head(hidden) at supervised
// positions only, in chunks of rows, so that no [tokens, vocab] tensor ever exists. The gradient
// towards `hidden` is made in the forward pass, chunk by chunk, while the logits are at hand. What
// is trained of the head (a copy, rows, an adapter) gets its gradient there, too.
//
//   loss = Σ_supervised -log softmax(hidden_i Wᵀ)[target_i] · weight_i
//
// In training on demonstrations every weight is 1 / supervised tokens of the whole step. A loss
// that depends on the log-probabilities of whole answers (preference_loss.h) takes two passes over
// the chunks: token_losses() gives the log-probabilities, and the derivatives of that loss towards
// them are the weights of weighted_cross_entropy().
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "lora/linear_group.h"

namespace qlora::trainer {

// Rows of logits held at once, by the bytes of one: 256 rows of a 49k vocabulary are 25 MB in bf16,
// 128 in fp32.
constexpr int64_t loss_chunk_rows(int64_t element_bytes) { return element_bytes > 2 ? 128 : 256; }

// hidden [tokens, hidden] in the compute dtype; targets: one per token, data::kIgnore where
// nothing is supervised; head: one layer. Returns a scalar fp32 tensor, differentiable towards
// hidden, whose backward() must be called with 1 and at most once: the head's own gradients are
// already added. No supervised target gives 0, not NaN. `softcap`: logits z become cap tanh(z /
// cap) (Gemma 2); 0: they do not. All weights are `scale`.
at::Tensor fused_cross_entropy(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                               const lora::LinearGroup& head, double scale,
                               const lora::ForwardContext& context, double softcap = 0);

// The same with weights of any sign, one a token; those of tokens without a target are not read.
at::Tensor weighted_cross_entropy(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                                  const std::vector<double>& weights, const lora::LinearGroup& head,
                                  const lora::ForwardContext& context, double softcap = 0);

// The negative log-likelihood (nats) of each supervised target, in order; no gradient. In training
// (context) the head drops the same inputs as in a cross entropy of the same targets.
std::vector<float> token_losses(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                                const lora::LinearGroup& head, const lora::ForwardContext& context,
                                double softcap = 0);

}  // namespace qlora::trainer
