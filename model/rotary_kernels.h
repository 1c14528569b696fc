#pragma once

#include <cstdint>

#include "quant/element_type.h"

namespace qlora::model {

struct Rotate {
  void* x;         // [tokens, heads * 2 * half], rotated in place
  int64_t stride;  // elements from token to token
  quant::ElementType type;
  const float *cos, *sin;  // [tokens, half]
  int64_t tokens, heads, half;
  float sign;  // -1 rotates back
};

namespace cpu {
void rotate(const Rotate& arguments);
}
namespace cuda {
void rotate(const Rotate& arguments, void* stream);
}

}  // namespace qlora::model
