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

template <typename T>
void swiglu(const T* gate, const T* up, int64_t count, T* out) {
  parallel_for(count, 4096,
               [&](int64_t begin, int64_t end) { forward(gate, up, begin, end, out); });
}

template <typename T>
void swiglu_backward(const T* gate, const T* up, const T* dy, int64_t count, T* d_gate, T* d_up) {
  parallel_for(count, 4096, [&](int64_t begin, int64_t end) {
    backward(gate, up, dy, begin, end, d_gate, d_up);
  });
}

template void swiglu(const float*, const float*, int64_t, float*);
template void swiglu(const uint16_t*, const uint16_t*, int64_t, uint16_t*);
template void swiglu(const Float16*, const Float16*, int64_t, Float16*);
template void swiglu_backward(const float*, const float*, const float*, int64_t, float*, float*);
template void swiglu_backward(const uint16_t*, const uint16_t*, const uint16_t*, int64_t, uint16_t*,
                              uint16_t*);
template void swiglu_backward(const Float16*, const Float16*, const Float16*, int64_t, Float16*,
                              Float16*);

}  // namespace qlora::model::cpu
