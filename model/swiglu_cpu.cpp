#include <algorithm>

#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/swiglu_kernels.h"

namespace qlora::model::cpu {
namespace {

template <typename T>
[[gnu::always_inline]] inline void forward_range(const T* __restrict gate, const T* __restrict up,
                                                 int64_t begin, int64_t end, T* __restrict out) {
  for (int64_t i = begin; i < end; ++i) {
    const float g = load(gate[i]);
    store(g / (1.0f + vector_exp(-g)) * load(up[i]), out[i]);
  }
}

template <typename T>
[[gnu::always_inline]] inline void backward_range(const T* __restrict gate, const T* __restrict up,
                                                  const T* __restrict dy, int64_t begin,
                                                  int64_t end, T* __restrict d_gate,
                                                  T* __restrict d_up) {
  for (int64_t i = begin; i < end; ++i) {
    const float g = load(gate[i]), d = load(dy[i]);
    const float s = 1.0f / (1.0f + vector_exp(-g));
    store(d * load(up[i]) * s * (1.0f + g * (1.0f - s)), d_gate[i]);
    store(d * g * s, d_up[i]);
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_SWIGLU_RANGE(T)                                                                      \
  QLORA_VECTORIZED void forward(const T* g, const T* u, int64_t b, int64_t e, T* out) {            \
    forward_range(g, u, b, e, out);                                                                \
  }                                                                                                \
  QLORA_VECTORIZED void backward(const T* g, const T* u, const T* dy, int64_t b, int64_t e, T* dg, \
                                 T* du) {                                                          \
    backward_range(g, u, dy, b, e, dg, du);                                                        \
  }

QLORA_SWIGLU_RANGE(float)
QLORA_SWIGLU_RANGE(uint16_t)
QLORA_SWIGLU_RANGE(Float16)
#undef QLORA_SWIGLU_RANGE

}  // namespace

constexpr int64_t kElementsAThread = 4096;

int64_t grain(int64_t width) { return std::max<int64_t>(1, kElementsAThread / width); }

template <typename T>
void swiglu(StridedRows<const T> gate, StridedRows<const T> up, int64_t tokens, int64_t width,
            T* out) {
  parallel_for(tokens, grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      forward(gate.data + t * gate.stride, up.data + t * up.stride, 0, width, out + t * width);
  });
}

template <typename T>
void swiglu_backward(StridedRows<const T> gate, StridedRows<const T> up, StridedRows<const T> dy,
                     int64_t tokens, int64_t width, StridedRows<T> d_gate, StridedRows<T> d_up) {
  parallel_for(tokens, grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      backward(gate.data + t * gate.stride, up.data + t * up.stride, dy.data + t * dy.stride, 0,
               width, d_gate.data + t * d_gate.stride, d_up.data + t * d_up.stride);
  });
}

#define QLORA_SWIGLU(T)                                                                           \
  template void swiglu(StridedRows<const T>, StridedRows<const T>, int64_t, int64_t, T*);         \
  template void swiglu_backward(StridedRows<const T>, StridedRows<const T>, StridedRows<const T>, \
                                int64_t, int64_t, StridedRows<T>, StridedRows<T>);

QLORA_SWIGLU(float)
QLORA_SWIGLU(uint16_t)
QLORA_SWIGLU(Float16)
#undef QLORA_SWIGLU

}  // namespace qlora::model::cpu
