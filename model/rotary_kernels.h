#pragma once

#include <cstdint>

namespace qlora::model::cpu {

// T is float, uint16_t (bf16 bits) or Float16; cos, sin [tokens, half]; sign -1 rotates back.
template <typename T>
void rotate(const T* x, const float* cos, const float* sin, int64_t tokens, int64_t heads,
            int64_t half, float sign, T* out);

}  // namespace qlora::model::cpu
