#pragma once

#include <cstdint>

namespace qlora::model::cpu {

// T is float, uint16_t (bf16 bits) or Float16.
template <typename T>
void swiglu(const T* gate, const T* up, int64_t count, T* out);
template <typename T>
void swiglu_backward(const T* gate, const T* up, const T* dy, int64_t count, T* d_gate, T* d_up);

}  // namespace qlora::model::cpu
