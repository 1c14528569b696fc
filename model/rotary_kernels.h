#pragma once

#include <cstdint>

namespace qlora::model::cpu {

// In place; T is float, uint16_t (bf16 bits) or Float16; `stride` elements from token to token;
// cos, sin [tokens, half]; sign -1 rotates back.
template <typename T>
void rotate(T* x, int64_t stride, const float* cos, const float* sin, int64_t tokens, int64_t heads,
            int64_t half, float sign);

}  // namespace qlora::model::cpu
