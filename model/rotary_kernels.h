#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::model {

struct Rotate {
  void* x;         // [tokens, heads * head_dim]; the first 2 * half of a head turn in place
  int64_t stride;  // elements from token to token
  quant::ElementType type;
  const float *cos, *sin;  // [tokens, half]
  int64_t tokens, heads, head_dim, half;
  bool pairs;  // elements 2i and 2i + 1 turn together; else i and i + half
  float sign;  // -1 rotates back
};

namespace cpu {
void rotate(const Rotate& arguments);
}
namespace cuda {
void rotate(const Rotate& arguments, void* stream);
}

}  // namespace qlora::model
