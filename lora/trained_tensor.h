// Parameters that are trained whole, beside the low-rank adapters: biases, and what PEFT calls
// modules_to_save and trainable_token_indices. The model's own tensor stays as it was read; what is
// trained is a copy apart from it, a view of the AdapterSet's flat fp32 buffer, and stands in its
// place wherever adapters act.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace qlora::lora {

// `value` and `gradient` are fp32 and of the frozen tensor's shape; backward passes add to
// `gradient`. `compute` is what products read, cast once a step; undefined where the fp32 value
// itself is read (norms, the input embedding).
struct TrainedTensor {
  at::Tensor value, gradient, compute;
};

// Some rows of an embedding: value [ids, hidden] replaces those rows.
struct TrainedRows {
  std::vector<int64_t> ids;  // distinct tokens, in the order of the rows
  at::Tensor index;          // the same, int64 [ids] where `rows` lie
  TrainedTensor rows;
};

// What a norm multiplies by and adds: a weight and a bias, both fp32 and of one shape: [hidden],
// or for norms of heads [head_dim] or [heads, head_dim].
struct NormWeight {
  NormWeight() = default;
  NormWeight(at::Tensor frozen_weight, at::Tensor frozen_bias = {})
      : frozen(std::move(frozen_weight)), frozen_bias(std::move(frozen_bias)) {}

  at::Tensor frozen;                   // undefined: a norm without a weight (OLMo 1)
  at::Tensor frozen_bias;              // undefined: a norm without a bias
  std::vector<std::string> row_names;  // of the weight's rows, where files have a tensor for each
  std::unique_ptr<TrainedTensor> trained, trained_bias;  // null: frozen

  const at::Tensor& value(bool adapters_enabled) const {
    return trained && adapters_enabled ? trained->value : frozen;
  }
  const at::Tensor& bias(bool adapters_enabled) const {
    return trained_bias && adapters_enabled ? trained_bias->value : frozen_bias;
  }
  // Where the weight's gradient goes; undefined for a frozen one.
  at::Tensor gradient(bool adapters_enabled) const {
    return trained && adapters_enabled ? trained->gradient : at::Tensor();
  }
  at::Tensor bias_gradient(bool adapters_enabled) const {
    return trained_bias && adapters_enabled ? trained_bias->gradient : at::Tensor();
  }
};

// A leaf over trained memory that makes an autograd node part of the graph where the node's input
// needs no gradient; its .grad is never used.
inline at::Tensor anchor_of(const TrainedTensor& trained) {
  return trained.value.detach().requires_grad_(true);
}

}  // namespace qlora::lora
