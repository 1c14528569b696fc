#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/rotary_kernels.h"
#include "quant/elements/with_element_type.h"

namespace qlora::model::cpu {
namespace {

template <bool kPairs, typename T>
[[gnu::always_inline]] inline void rows(T* x, const RotatedHeads& in, const Rotate& a,
                                        const float* __restrict cos, const float* __restrict sin,
                                        int64_t begin, int64_t end) {
  const int64_t heads = in.heads, stride = in.stride, head_dim = a.head_dim, half = a.half;
  const float sign = a.sign;
  for (int64_t t = begin; t < end; ++t) {
    const float *c = cos + t * half, *s = sin + t * half;
    for (int64_t h = 0; h < heads; ++h) {
      T* __restrict first = x + t * stride + h * head_dim;
      T* __restrict second = first + (kPairs ? 1 : half);
      constexpr int64_t kStep = kPairs ? 2 : 1;
      for (int64_t i = 0; i < half; ++i) {
        const float u = load(first[kStep * i]), v = load(second[kStep * i]), si = sign * s[i];
        store(u * c[i] - v * si, first[kStep * i]);
        store(v * c[i] + u * si, second[kStep * i]);
      }
    }
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_ROTARY_RANGE(T)                                                               \
  QLORA_VECTORIZED void range(T* x, const RotatedHeads& in, const Rotate& a, int64_t begin, \
                              int64_t end) {                                                \
    if (a.pairs) return rows<true>(x, in, a, a.cos, a.sin, begin, end);                     \
    rows<false>(x, in, a, a.cos, a.sin, begin, end);                                        \
  }

QLORA_ROTARY_RANGE(float)
QLORA_ROTARY_RANGE(uint16_t)
QLORA_ROTARY_RANGE(Float16)
#undef QLORA_ROTARY_RANGE

}  // namespace

void rotate(const Rotate& a) {
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, 16, [&](int64_t begin, int64_t end) {
      for (const RotatedHeads& in : {a.first, a.second})
        range(static_cast<T*>(in.x), in, a, begin, end);
    });
  });
}

}  // namespace qlora::model::cpu
