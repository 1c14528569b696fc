#pragma once

#include <cstdint>

#include "quant/element_type.h"

namespace qlora::lora {

struct DropoutArguments {
  const void* input;
  void* output;  // same type
  quant::ElementType type;
  int64_t count;
  float probability;
  uint64_t key;
};

namespace cpu {
void dropout(const DropoutArguments& arguments);
}
namespace cuda {
void dropout(const DropoutArguments& arguments, void* stream);
}

}  // namespace qlora::lora
