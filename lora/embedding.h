// The input embedding: a frozen matrix, and what may be trained of it. The looked-up rows are fp32,
// as the residual stream they begin is; a trained row is read from its fp32 master. The matrix may
// lie elsewhere than the rows are used: in the memory of a GPU's host, or in a mapped file
// (model/placement.h); the rows of a batch alone are read.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "lora/trained_tensor.h"

namespace qlora::lora {

struct Embedding {
  Embedding() = default;
  Embedding(at::Tensor frozen) : weight(std::move(frozen)) {}

  // Where the rows are used, and what is trained lies.
  at::Device rows_device() const { return device.value_or(weight.device()); }

  at::Tensor weight;                       // [vocab, hidden], frozen
  std::optional<at::Device> device;        // rows_device(); none: where the matrix lies
  bool in_file = false;                    // its bytes are those of a mapped file
  std::unique_ptr<TrainedTensor> trained;  // the whole matrix (modules_to_save), or
  std::unique_ptr<TrainedRows> rows;       // some rows (trainable_token_indices), or neither

  // A leaf of the autograd node of embed(); undefined if nothing is trained.
  at::Tensor anchor() const;
};

// The rows of `tokens`, fp32 [tokens, hidden]. Differentiable towards what is trained, whose
// gradient is added up in the order of the tokens: the same bits on any number of threads.
at::Tensor embed(const Embedding& embedding, const std::vector<int32_t>& tokens,
                 bool adapters_enabled);

}  // namespace qlora::lora
