#pragma once

#include <cstdint>

namespace qlora::model::cpu {

// Rows of one shape whose starts lie `stride` elements apart.
template <typename T>
struct StridedRows {
  T* data;
  int64_t stride;
};

// T is float, uint16_t (bf16 bits) or Float16; out [tokens, width], contiguous.
template <typename T>
void swiglu(StridedRows<const T> gate, StridedRows<const T> up, int64_t tokens, int64_t width,
            T* out);
template <typename T>
void swiglu_backward(StridedRows<const T> gate, StridedRows<const T> up, StridedRows<const T> dy,
                     int64_t tokens, int64_t width, StridedRows<T> d_gate, StridedRows<T> d_up);

}  // namespace qlora::model::cpu
