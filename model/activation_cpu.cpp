#include <algorithm>

#include "base/element.h"
#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/activation_functions.h"
#include "model/activation_kernels.h"
#include "quant/elements/with_element_type.h"

namespace qlora::model::cpu {
namespace {

// Rows of one token.
template <typename T>
struct Row {
  const T *gate, *up;
  T* out;
};
template <typename T>
struct BackwardRow {
  const T *gate, *up, *dy;
  T *d_gate, *d_up;
};

template <typename F, bool kGated, typename T>
[[gnu::always_inline]] inline void forward_row(const T* __restrict gate, const T* __restrict up,
                                               int64_t width, T* __restrict out) {
  for (int64_t i = 0; i < width; ++i) {
    const float value = F::value(load(gate[i]));
    if constexpr (kGated)
      store(value * load(up[i]), out[i]);
    else
      store(value, out[i]);
  }
}

template <typename F, bool kGated, typename T>
[[gnu::always_inline]] inline void backward_row(const T* __restrict gate, const T* __restrict up,
                                                const T* __restrict dy, int64_t width,
                                                T* __restrict d_gate, T* __restrict d_up) {
  for (int64_t i = 0; i < width; ++i) {
    const F f(load(gate[i]));
    const float d = load(dy[i]);
    if constexpr (kGated) {
      store(f.times_slope(d * load(up[i])), d_gate[i]);
      store(f.times_value(d), d_up[i]);
    } else {
      store(f.times_slope(d), d_gate[i]);
    }
  }
}

[[gnu::always_inline]] inline float within(float x, float limit) {
  return x > limit ? limit : x < -limit ? -limit : x;
}

template <typename T>
[[gnu::always_inline]] inline void clamped_row(const T* __restrict gate, const T* __restrict up,
                                               int64_t width, float limit, float alpha,
                                               T* __restrict out) {
  for (int64_t i = 0; i < width; ++i) {
    const float given = load(gate[i]), g = given > limit ? limit : given;
    store(g / (1.0f + vector_exp(-alpha * g)) * (within(load(up[i]), limit) + 1.0f), out[i]);
  }
}

template <typename T>
[[gnu::always_inline]] inline void clamped_backward_row(const T* __restrict gate,
                                                        const T* __restrict up,
                                                        const T* __restrict dy, int64_t width,
                                                        float limit, float alpha,
                                                        T* __restrict d_gate, T* __restrict d_up) {
  for (int64_t i = 0; i < width; ++i) {
    const float given = load(gate[i]), u = load(up[i]), d = load(dy[i]);
    const float g = given > limit ? limit : given;
    const float s = 1.0f / (1.0f + vector_exp(-alpha * g));
    const float slope = s * (1.0f + alpha * g * (1.0f - s));
    store(given > limit ? 0.0f : d * (within(u, limit) + 1.0f) * slope, d_gate[i]);
    store(std::fabs(u) > limit ? 0.0f : d * g * s, d_up[i]);
  }
}

template <typename F, typename T>
[[gnu::always_inline]] inline void one_row(bool gated, const Row<T>& r, int64_t width) {
  if (gated) return forward_row<F, true>(r.gate, r.up, width, r.out);
  forward_row<F, false>(r.gate, r.up, width, r.out);
}

template <typename F, typename T>
[[gnu::always_inline]] inline void one_row(bool gated, const BackwardRow<T>& r, int64_t width) {
  if (gated) return backward_row<F, true>(r.gate, r.up, r.dy, width, r.d_gate, r.d_up);
  backward_row<F, false>(r.gate, r.up, r.dy, width, r.d_gate, r.d_up);
}

template <typename T>
[[gnu::always_inline]] inline void one_clamped_row(const ActivationKernel& how, const Row<T>& r,
                                                   int64_t width) {
  clamped_row(r.gate, r.up, width, how.limit, how.alpha, r.out);
}

template <typename T>
[[gnu::always_inline]] inline void one_clamped_row(const ActivationKernel& how,
                                                   const BackwardRow<T>& r, int64_t width) {
  clamped_backward_row(r.gate, r.up, r.dy, width, how.limit, how.alpha, r.d_gate, r.d_up);
}

template <typename AnyRow>
[[gnu::always_inline]] inline void row_of_kind(const ActivationKernel& how, const AnyRow& r,
                                               int64_t width) {
  switch (how.kind) {
    case Activation::kSilu:
      return one_row<Silu>(how.gated, r, width);
    case Activation::kGelu:
      return one_row<Gelu>(how.gated, r, width);
    case Activation::kGeluTanh:
      return one_row<GeluTanh>(how.gated, r, width);
    case Activation::kRelu:
      return one_row<Relu>(how.gated, r, width);
    case Activation::kRelu2:
      return one_row<Relu2>(how.gated, r, width);
    case Activation::kClampedSilu:
      return one_clamped_row(how, r, width);
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_ACTIVATION_ROW(T)                                                                \
  QLORA_VECTORIZED void forward(const ActivationKernel& how, const Row<T>& r, int64_t width) { \
    row_of_kind(how, r, width);                                                                \
  }                                                                                            \
  QLORA_VECTORIZED void backward(const ActivationKernel& how, const BackwardRow<T>& r,         \
                                 int64_t width) {                                              \
    row_of_kind(how, r, width);                                                                \
  }

QLORA_ACTIVATION_ROW(float)
QLORA_ACTIVATION_ROW(uint16_t)
QLORA_ACTIVATION_ROW(Float16)
#undef QLORA_ACTIVATION_ROW

template <typename T>
const T* row(ConstRows rows, int64_t t) {
  return static_cast<const T*>(rows.data) + t * rows.stride;
}
template <typename T>
T* row(MutableRows rows, int64_t t) {
  return static_cast<T*>(rows.data) + t * rows.stride;
}

constexpr int64_t kElementsAThread = 4096;

bool has_vectors_for(const ActivationKernel& how, quant::ElementType type) {
  return has_avx512_bfloat16() && type == quant::ElementType::kBFloat16 &&
         supports_activation_bfloat16_avx512(how.kind);
}

int64_t grain(int64_t width) { return std::max<int64_t>(1, kElementsAThread / width); }

}  // namespace

void activate(const Activate& a) {
  if (has_vectors_for(a.how, a.type)) return activate_bfloat16_avx512(a);
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, grain(a.width), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        forward(a.how, Row<T>{row<T>(a.gate, t), row<T>(a.up, t), row<T>(a.out, t)}, a.width);
    });
  });
}

void activate_backward(const ActivateBackward& a) {
  if (has_vectors_for(a.how, a.type)) return activate_backward_bfloat16_avx512(a);
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, grain(a.width), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        backward(a.how,
                 BackwardRow<T>{row<T>(a.gate, t), row<T>(a.up, t), row<T>(a.dy, t),
                                row<T>(a.d_gate, t), row<T>(a.d_up, t)},
                 a.width);
    });
  });
}

}  // namespace qlora::model::cpu
