#pragma once

#include <cstdint>

namespace qlora::lora {

struct DropoutArguments {
  const void* input;  // bf16 or fp32
  void* output;       // same type
  bool is_bfloat16;
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
