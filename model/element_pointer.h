// Tensors as the kernels take them: float*, uint16_t* (bf16 bits) or Float16*.
#pragma once

#include <ATen/core/Tensor.h>

#include <type_traits>

#include "base/element.h"
#include "base/error.h"

namespace qlora::model {

// Null for an undefined tensor.
template <typename T>
T* elements(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

// Calls f with a pointer to the elements of `tensor`, which says their type.
template <typename F>
void with_elements(const at::Tensor& tensor, const F& f) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return f(elements<float>(tensor));
    case at::kBFloat16:
      return f(elements<uint16_t>(tensor));
    case at::kHalf:
      return f(elements<Float16>(tensor));
    default:
      fail<Error>("elements must be float32, bfloat16 or float16, got {}",
                  c10::toString(tensor.scalar_type()));
  }
}

template <typename Pointer>
using ElementOf = std::remove_pointer_t<Pointer>;

}  // namespace qlora::model
