// From a type named at run time to one that a kernel is compiled for.
#pragma once

#include <type_traits>

#include "base/element.h"
#include "quant/elements/element_type.h"

namespace qlora::quant {

// Calls f(std::type_identity<T>()), T as CPU kernels take elements: float, uint16_t (bf16 bits) or
// Float16.
template <typename F>
void with_element_type(ElementType type, const F& f) {
  switch (type) {
    case ElementType::kFloat32:
      return f(std::type_identity<float>());
    case ElementType::kBFloat16:
      return f(std::type_identity<uint16_t>());
    case ElementType::kFloat16:
      return f(std::type_identity<Float16>());
  }
}

}  // namespace qlora::quant
