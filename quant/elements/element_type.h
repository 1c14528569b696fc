// The floating types of weights, named for kernels that may not include torch.
#pragma once

#include <cstdint>

namespace qlora::quant {

enum class ElementType { kFloat32, kBFloat16, kFloat16 };

inline int64_t element_size(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

}  // namespace qlora::quant
