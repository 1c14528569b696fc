#include <algorithm>

#include "base/element.h"
#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/swiglu_kernels.h"
#include "quant/with_element_type.h"

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

template <typename T>
const T* row(ConstRows rows, int64_t t) {
  return static_cast<const T*>(rows.data) + t * rows.stride;
}
template <typename T>
T* row(MutableRows rows, int64_t t) {
  return static_cast<T*>(rows.data) + t * rows.stride;
}

constexpr int64_t kElementsAThread = 4096;

bool has_vectors_for(quant::ElementType type) {
  return has_avx512_bfloat16() && type == quant::ElementType::kBFloat16;
}

int64_t grain(int64_t width) { return std::max<int64_t>(1, kElementsAThread / width); }

}  // namespace

void swiglu(const Swiglu& a) {
  if (has_vectors_for(a.type)) return swiglu_bfloat16_avx512(a);
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, grain(a.width), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        forward(row<T>(a.gate, t), row<T>(a.up, t), 0, a.width, row<T>(a.out, t));
    });
  });
}

void swiglu_backward(const SwigluBackward& a) {
  if (has_vectors_for(a.type)) return swiglu_backward_bfloat16_avx512(a);
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, grain(a.width), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        backward(row<T>(a.gate, t), row<T>(a.up, t), row<T>(a.dy, t), 0, a.width,
                 row<T>(a.d_gate, t), row<T>(a.d_up, t));
    });
  });
}

}  // namespace qlora::model::cpu
