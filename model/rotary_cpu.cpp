#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/rotary_kernels.h"
#include "quant/with_element_type.h"

namespace qlora::model::cpu {
namespace {

template <typename T>
[[gnu::always_inline]] inline void rows(T* x, int64_t stride, const float* __restrict cos,
                                        const float* __restrict sin, int64_t begin, int64_t end,
                                        int64_t heads, int64_t half, float sign) {
  for (int64_t t = begin; t < end; ++t) {
    const float *c = cos + t * half, *s = sin + t * half;
    for (int64_t h = 0; h < heads; ++h) {
      T* __restrict first = x + t * stride + h * 2 * half;
      T* __restrict second = first + half;
      for (int64_t i = 0; i < half; ++i) {
        const float a = load(first[i]), b = load(second[i]), si = sign * s[i];
        store(a * c[i] - b * si, first[i]);
        store(b * c[i] + a * si, second[i]);
      }
    }
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_ROTARY_RANGE(T)                                                                  \
  QLORA_VECTORIZED void range(T* x, int64_t stride, const float* c, const float* s, int64_t b, \
                              int64_t e, int64_t heads, int64_t half, float sign) {            \
    rows(x, stride, c, s, b, e, heads, half, sign);                                            \
  }

QLORA_ROTARY_RANGE(float)
QLORA_ROTARY_RANGE(uint16_t)
QLORA_ROTARY_RANGE(Float16)
#undef QLORA_ROTARY_RANGE

}  // namespace

void rotate(const Rotate& a) {
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, 16, [&](int64_t begin, int64_t end) {
      range(static_cast<T*>(a.x), a.stride, a.cos, a.sin, begin, end, a.heads, a.half, a.sign);
    });
  });
}

}  // namespace qlora::model::cpu
