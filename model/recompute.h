// Gradient checkpointing (Chen et al. 2016): a segment's forward pass runs without a graph and
// keeps only its input; the backward pass runs it again with a graph and differentiates that.
// Gradients equal those without it, bit for bit, since every kernel here is deterministic and
// dropout masks are functions of a key.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace qlora::model {

// segment: [tokens, hidden] -> [tokens, hidden]. It is called once here and once more in the
// backward pass, so all it captures must live until then. `anchor`: any leaf that requires grad, so
// that the result does.
at::Tensor recompute(const at::Tensor& input, const at::Tensor& anchor,
                     std::function<at::Tensor(const at::Tensor&)> segment);

// The same of a segment(input, encoded) that reads a second tensor, which is kept, too, and gets
// its gradient; it may be undefined.
at::Tensor recompute(const at::Tensor& input, const at::Tensor& encoded, const at::Tensor& anchor,
                     std::function<at::Tensor(const at::Tensor&, const at::Tensor&)> segment);

}  // namespace qlora::model
