#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/rotary_kernels.h"
#include "quant/with_element_type.h"

namespace qlora::model::cpu {
namespace {

template <typename T>
[[gnu::always_inline]] inline void halves(T* head, const float* cos, const float* sin, int64_t half,
                                          float sign) {
  T* __restrict first = head;
  T* __restrict second = head + half;
  for (int64_t i = 0; i < half; ++i) {
    const float a = load(first[i]), b = load(second[i]), s = sign * sin[i];
    store(a * cos[i] - b * s, first[i]);
    store(b * cos[i] + a * s, second[i]);
  }
}

template <typename T>
[[gnu::always_inline]] inline void neighbours(T* __restrict head, const float* cos,
                                              const float* sin, int64_t half, float sign) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = load(head[2 * i]), b = load(head[2 * i + 1]), s = sign * sin[i];
    store(a * cos[i] - b * s, head[2 * i]);
    store(b * cos[i] + a * s, head[2 * i + 1]);
  }
}

template <typename T>
[[gnu::always_inline]] inline void rows(const Rotate& a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* __restrict cos = a.cos + t * a.half;
    const float* __restrict sin = a.sin + t * a.half;
    for (int64_t h = 0; h < a.heads; ++h) {
      T* head = static_cast<T*>(a.x) + t * a.stride + h * a.head_dim;
      if (a.pairs)
        neighbours(head, cos, sin, a.half, a.sign);
      else
        halves(head, cos, sin, a.half, a.sign);
    }
  }
}

// The loops for each type of element, compiled for several instruction sets.
QLORA_VECTORIZED void range(const Rotate& a, int64_t begin, int64_t end,
                            std::type_identity<float>) {
  rows<float>(a, begin, end);
}
QLORA_VECTORIZED void range(const Rotate& a, int64_t begin, int64_t end,
                            std::type_identity<uint16_t>) {
  rows<uint16_t>(a, begin, end);
}
QLORA_VECTORIZED void range(const Rotate& a, int64_t begin, int64_t end,
                            std::type_identity<Float16>) {
  rows<Float16>(a, begin, end);
}

}  // namespace

void rotate(const Rotate& a) {
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T> type) {
    parallel_for(a.tokens, 16, [&](int64_t begin, int64_t end) { range(a, begin, end, type); });
  });
}

}  // namespace qlora::model::cpu
