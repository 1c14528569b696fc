// From a type named at run time to one that a CUDA kernel is compiled for.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "quant/elements/element_type.h"

namespace qlora::quant::cuda {

template <typename T>
struct TypeTag {
  using Type = T;
};

// Calls f(TypeTag<T>()), T as device code takes elements: float, __nv_bfloat16 or __half.
template <typename F>
void with_device_type(ElementType type, const F& f) {
  switch (type) {
    case ElementType::kFloat32:
      return f(TypeTag<float>());
    case ElementType::kBFloat16:
      return f(TypeTag<__nv_bfloat16>());
    case ElementType::kFloat16:
      return f(TypeTag<__half>());
  }
}

}  // namespace qlora::quant::cuda
