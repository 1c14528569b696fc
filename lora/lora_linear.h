// A linear layer of the model: a frozen base and an adapter slot. Every projection is one from the
// start; quantizing changes the storage inside, attaching fills the slot, and no module is ever
// replaced.
//
//   LoRA:               y = x Wᵀ + scaling (x' Aᵀ) Bᵀ + bias
//   DoRA:               y = m/n (x Wᵀ + scaling (x Aᵀ) Bᵀ) + bias,   n = |W + scaling B A|
//   DoRA with dropout:  y = x Wᵀ + (m/n - 1) x' Wᵀ + m/n scaling (x' Aᵀ) Bᵀ + bias
//
// x' = dropout(x). |·| is the norm of each row; no gradient passes through it. With dropout x Wᵀ
// stays apart from what the magnitude m scales, as in PEFT. (Hu et al. 2021, section 4.1; Liu et
// al. 2024, section 4.)
//
// A [rank, in] and B [out, rank] have fp32 masters, which are views of one flat buffer (see
// attach.h); the products use copies in the compute dtype, cast once a step. With B = 0 the layer's
// output is the base's, exactly.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "lora/trained_tensor.h"
#include "quant/frozen_weight.h"

namespace qlora::lora {

// The adapter in one slot. Tensors are shared with the AdapterSet that made it.
struct Adapter {
  int64_t rank = 0;
  double scaling = 1.0;
  double dropout = 0.0;
  uint64_t dropout_key = 0;         // of this module; joined with the pass's key
  at::Tensor a, b;                  // fp32 masters [rank, in], [out, rank]
  at::Tensor grad_a, grad_b;        // fp32, accumulated into by the backward pass
  at::Tensor a_compute, b_compute;  // what the products read

  // DoRA; all fp32 [out], undefined otherwise.
  at::Tensor magnitude, grad_magnitude;
  at::Tensor base_squares;  // of each row of W
  at::Tensor norm;          // of each row of W + scaling B A, as of the last publish()
  at::Tensor factor;        // magnitude / norm
  bool is_dora() const { return magnitude.defined(); }
};

struct LoraLinear {
  std::string name;  // Hugging Face module path: "model.layers.0.self_attn.q_proj"
  std::unique_ptr<quant::FrozenWeight> base;
  at::Tensor bias;                   // [out] or undefined; frozen
  bool stored_by_inputs = false;     // files of Hugging Face hold Wᵀ, [in, out] (Conv1D)
  bool rows_in_turn = false;         // of gate and up, in PEFT's files (rows_in_turn.h)
  std::unique_ptr<Adapter> adapter;  // empty slot: the base alone

  // What is trained in place of the frozen parts; each may be null.
  std::unique_ptr<TrainedTensor> trained_bias;
  std::unique_ptr<TrainedTensor> trained_weight;  // modules_to_save: [out, in], no adapter then
  std::unique_ptr<TrainedRows> trained_rows;      // trainable_token_indices of the head

  // The bias in use; undefined if there is none.
  const at::Tensor& active_bias(bool adapters_enabled) const {
    return trained_bias && adapters_enabled ? trained_bias->compute : bias;
  }
  int64_t in_features() const { return base->in_features(); }
  int64_t out_features() const { return base->out_features(); }
};

}  // namespace qlora::lora
