#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/rotary_kernels.h"

namespace qlora::model::cpu {
namespace {

template <typename T>
[[gnu::always_inline]] inline void rows(const T* __restrict x, const float* __restrict cos,
                                        const float* __restrict sin, int64_t begin, int64_t end,
                                        int64_t heads, int64_t half, float sign,
                                        T* __restrict out) {
  for (int64_t t = begin; t < end; ++t) {
    const float *c = cos + t * half, *s = sin + t * half;
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t base = (t * heads + h) * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const float a = load(x[base + i]), b = load(x[base + half + i]), si = sign * s[i];
        store(a * c[i] - b * si, out[base + i]);
        store(b * c[i] + a * si, out[base + half + i]);
      }
    }
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_ROTARY_RANGE(T)                                                                   \
  QLORA_VECTORIZED void range(const T* x, const float* c, const float* s, int64_t b, int64_t e, \
                              int64_t heads, int64_t half, float sign, T* out) {                \
    rows(x, c, s, b, e, heads, half, sign, out);                                                \
  }

QLORA_ROTARY_RANGE(float)
QLORA_ROTARY_RANGE(uint16_t)
QLORA_ROTARY_RANGE(Float16)
#undef QLORA_ROTARY_RANGE

}  // namespace

template <typename T>
void rotate(const T* x, const float* cos, const float* sin, int64_t tokens, int64_t heads,
            int64_t half, float sign, T* out) {
  parallel_for(tokens, 16,
               [&](int64_t b, int64_t e) { range(x, cos, sin, b, e, heads, half, sign, out); });
}

template void rotate(const float*, const float*, const float*, int64_t, int64_t, int64_t, float,
                     float*);
template void rotate(const uint16_t*, const float*, const float*, int64_t, int64_t, int64_t, float,
                     uint16_t*);
template void rotate(const Float16*, const float*, const float*, int64_t, int64_t, int64_t, float,
                     Float16*);

}  // namespace qlora::model::cpu
