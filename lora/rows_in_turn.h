// Two ways to order the rows of a matrix that is two matrices of equal height, gate and up: one
// below the other, as this program holds them,
//
//   gate 0, gate 1, ..., up 0, up 1, ...
//
// and in turn, gate 0, up 0, gate 1, up 1, ..., as transformers has gpt-oss' gate_up_proj: in model
// files its columns, in PEFT's adapters the rows of lora_B.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::lora {

// [2 n, ...], one below the other -> [2 n, ...], in turn.
at::Tensor rows_in_turn(const at::Tensor& halves);
// [2 n, ...], in turn -> [2 n, ...], one below the other.
at::Tensor rows_in_halves(const at::Tensor& turns);

}  // namespace qlora::lora
