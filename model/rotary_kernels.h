#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::model {

// Heads side by side in each row; the first 2 * half elements of a head turn in place.
struct RotatedHeads {
  void* x = nullptr;   // [tokens, heads * head_dim]
  int64_t stride = 0;  // elements from token to token
  int64_t heads = 0;   // 0: there are none
};

struct Rotate {
  RotatedHeads first, second;  // of one type, turned by the same angles
  quant::ElementType type;
  const float *cos, *sin;  // [tokens, half]
  int64_t tokens, head_dim, half;
  bool pairs;  // elements 2i and 2i + 1 turn together; else i and i + half
  float sign;  // -1 rotates back
};

namespace cpu {
void rotate(const Rotate& arguments);
}
namespace cuda {
// One launch.
void rotate(const Rotate& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::model
