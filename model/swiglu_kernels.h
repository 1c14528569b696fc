#pragma once

#include <cstdint>

#include "quant/element_type.h"

namespace qlora::model {

// Rows whose starts lie `stride` elements apart.
template <typename T>
struct StridedRows {
  T* data;
  int64_t stride;
};
using ConstRows = StridedRows<const void>;
using MutableRows = StridedRows<void>;

// All are [tokens, width] of one type.
struct Swiglu {
  ConstRows gate, up;
  MutableRows out;
  quant::ElementType type;
  int64_t tokens, width;
};
struct SwigluBackward {
  ConstRows gate, up, dy;
  MutableRows d_gate, d_up;
  quant::ElementType type;
  int64_t tokens, width;
};

namespace cpu {
void swiglu(const Swiglu& arguments);
void swiglu_backward(const SwigluBackward& arguments);
// The same of bf16 elements, where has_avx512_bfloat16().
void swiglu_bfloat16_avx512(const Swiglu& arguments);
void swiglu_backward_bfloat16_avx512(const SwigluBackward& arguments);
}  // namespace cpu
namespace cuda {
void swiglu(const Swiglu& arguments, void* stream);
void swiglu_backward(const SwigluBackward& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::model
