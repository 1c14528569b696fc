#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::lora {

// out (+)= in, dropped.
struct DroppedTensor {
  const void* in;
  void* out;
  bool accumulate;
};

// Both tensors are dropped by one mask; the second may be missing (null).
struct DropoutArguments {
  DroppedTensor first, second;
  quant::ElementType type;
  int64_t count;
  float probability;
  uint64_t key;
};

// An element is dropped if its 16 random bits are below this.
inline uint32_t drop_below(float probability) {
  return static_cast<uint32_t>(probability * 65536.0f + 0.5f);
}

namespace cpu {
void dropout(const DropoutArguments& arguments);
}
namespace cuda {
void dropout(const DropoutArguments& arguments, void* stream);
}

}  // namespace qlora::lora
