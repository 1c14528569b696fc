#pragma once

#include <cstdint>

#include "model/activation_rule.h"
#include "quant/elements/element_type.h"

namespace qlora::model {

// Rows whose starts lie `stride` elements apart.
template <typename T>
struct StridedRows {
  T* data;
  int64_t stride;
};
using ConstRows = StridedRows<const void>;
using MutableRows = StridedRows<void>;

struct ActivationKernel {
  Activation kind;
  bool gated;
  float limit, alpha;
};

// All are [tokens, width] of one type. Without a gate, up and d_up are null.
struct Activate {
  ActivationKernel how;
  ConstRows gate, up;
  MutableRows out;
  quant::ElementType type;
  int64_t tokens, width;
};
struct ActivateBackward {
  ActivationKernel how;
  ConstRows gate, up, dy;
  MutableRows d_gate, d_up;
  quant::ElementType type;
  int64_t tokens, width;
};

namespace cpu {
void activate(const Activate& arguments);
void activate_backward(const ActivateBackward& arguments);
// The same on bf16 elements, where has_avx512_bfloat16(), of activations with an exponential.
bool supports_activation_bfloat16_avx512(Activation kind);
void activate_bfloat16_avx512(const Activate& arguments);
void activate_backward_bfloat16_avx512(const ActivateBackward& arguments);
}  // namespace cpu
namespace cuda {
void activate(const Activate& arguments, void* stream);
void activate_backward(const ActivateBackward& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::model
