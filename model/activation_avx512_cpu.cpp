// bf16 from and to two instructions a vector of fp32, and a reciprocal instead of a division.
#include "model/activation_kernels.h"

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "base/bfloat16_vectors_avx512.h"

namespace qlora::model::cpu {
namespace {
using namespace avx512;

// 1 / (1 + e^-x), relative error below 1e-5; 2^-120 where it is less, so that the reciprocal needs
// no case of its own.
[[gnu::always_inline]] inline __m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 power = _mm512_min_ps(_mm512_set1_ps(120.0f),
                                     _mm512_mul_ps(x, _mm512_set1_ps(-kLog2e)));  // keeps a NaN
  const __m512 sum = _mm512_add_ps(one, exp2_of(power));
  const __m512 guess = _mm512_rcp14_ps(sum);
  return _mm512_fmadd_ps(guess, _mm512_fnmadd_ps(sum, guess, one), guess);
}

// 32 neighbours of a row, as the first and the second of each word.
struct Two {
  __m512 first, second;
};
[[gnu::always_inline]] inline Two two_at(const uint16_t* from, __mmask32 mask) {
  const __m512i words = _mm512_maskz_loadu_epi16(mask, from);
  return {first_of(words), second_of(words)};
}
[[gnu::always_inline]] inline void store_two(const Two& two, uint16_t* to, __mmask32 mask) {
  _mm512_mask_storeu_epi16(to, mask, woven(rounded(two.first, two.second)));
}

// The activations at 16 numbers; the formulas are those of model/activation_functions.h. Each has
//   value()                 act(x)
//   times_value(d)          d · act(x)
//   times_slope(d, factor)  d · act'(x) · factor
// and, for those that change what comes through `up`, factor(up) and through_up(d, up).
[[gnu::always_inline]] inline __m512 times(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
[[gnu::always_inline]] inline __m512 plus(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
[[gnu::always_inline]] inline __m512 less(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
[[gnu::always_inline]] inline __m512 all(float value) { return _mm512_set1_ps(value); }
// Within -limit and limit; keeps a NaN.
[[gnu::always_inline]] inline __m512 within(__m512 x, float limit) {
  return _mm512_max_ps(all(-limit), _mm512_min_ps(all(limit), x));
}
// a b + c, rounded once.
[[gnu::always_inline]] inline __m512 fused(__m512 a, __m512 b, __m512 c) {
  return _mm512_fmadd_ps(a, b, c);
}

struct UpAsItIs {
  [[gnu::always_inline]] static __m512 factor(__m512 up) { return up; }
  [[gnu::always_inline]] static __m512 through_up(__m512 d, __m512 /*up*/) { return d; }
};

struct Silu : UpAsItIs {
  __m512 x, s;
  [[gnu::always_inline]] Silu(__m512 at, const ActivationKernel&) : x(at), s(sigmoid(at)) {}
  [[gnu::always_inline]] __m512 value() const { return times(x, s); }
  [[gnu::always_inline]] __m512 times_value(__m512 d) const { return times(times(d, s), x); }
  [[gnu::always_inline]] __m512 times_slope(__m512 d, __m512 factor) const {
    return times(times(times(d, s), factor), fused(x, less(all(1.0f), s), all(1.0f)));
  }
};

struct GeluTanh : UpAsItIs {
  static constexpr float kScale = 1.5957691216057308f, kCube = 0.044715f;  // 2 √(2/π)
  __m512 x, near, square, s;
  [[gnu::always_inline]] GeluTanh(__m512 at, const ActivationKernel&)
      : x(at), near(within(at, 30.0f)), square(times(near, near)) {
    s = sigmoid(times(times(near, all(kScale)), fused(square, all(kCube), all(1.0f))));
  }
  [[gnu::always_inline]] __m512 value() const { return times(x, s); }
  [[gnu::always_inline]] __m512 times_value(__m512 d) const { return times(times(d, s), x); }
  [[gnu::always_inline]] __m512 times_slope(__m512 d, __m512 factor) const {
    const __m512 inner = times(fused(square, all(3.0f * kCube), all(1.0f)), all(kScale));
    const __m512 slope = fused(times(times(near, s), less(all(1.0f), s)), inner, s);
    return times(times(d, factor), slope);
  }
};

struct Gelu : UpAsItIs {
  __m512 x, phi;
  [[gnu::always_inline]] Gelu(__m512 at, const ActivationKernel&)
      : x(at), phi(times(all(0.5f), plus(all(1.0f), erf(times(at, all(0.70710678118654752f)))))) {}
  [[gnu::always_inline]] static __m512 erf(__m512 x) {
    const __m512 size = _mm512_abs_ps(x), t = _mm512_min_ps(all(4.0f), size), u = times(t, t);
    __m512 far = fused(fused(all(-1.72853470e-5f), t, all(3.83197126e-4f)), u,
                       fused(all(-3.88396438e-3f), t, all(2.42546219e-2f)));
    far = fused(far, t, all(-1.06777877e-1f));
    far = fused(far, t, all(-6.34846687e-1f));
    far = fused(far, t, all(-1.28717512e-1f));
    far = exp2_of(times(less(times(far, t), t), all(kLog2e)));
    const __m512 sign = _mm512_and_ps(x, all(-0.0f));
    far = _mm512_or_ps(less(all(1.0f), far), sign);
    const __m512 square = times(x, x);
    __m512 near = all(-5.96761703e-4f);
    near = fused(near, square, all(4.99119423e-3f));
    near = fused(near, square, all(-2.67681349e-2f));
    near = fused(near, square, all(1.12819925e-1f));
    near = fused(near, square, all(-3.76125336e-1f));
    near = fused(near, square, all(1.28379166e-1f));
    near = fused(near, x, x);
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(size, all(0.927734375f), _CMP_GT_OQ), near, far);
  }
  [[gnu::always_inline]] __m512 value() const { return times(x, phi); }
  [[gnu::always_inline]] __m512 times_value(__m512 d) const { return times(times(d, x), phi); }
  [[gnu::always_inline]] __m512 times_slope(__m512 d, __m512 factor) const {
    const __m512 density =
        times(all(0.3989422804014327f), exp2_of(times(times(x, x), all(-0.5f * kLog2e))));
    return times(times(d, factor), fused(x, density, phi));
  }
};

// What lies beyond the limits has no slope.
struct ClampedSilu {
  __m512 x, s;
  __mmask16 beyond;
  float limit, alpha;
  [[gnu::always_inline]] ClampedSilu(__m512 at, const ActivationKernel& how)
      : x(_mm512_min_ps(all(how.limit), at)),
        s(sigmoid(times(all(how.alpha), x))),
        beyond(_mm512_cmp_ps_mask(at, all(how.limit), _CMP_GT_OQ)),
        limit(how.limit),
        alpha(how.alpha) {}
  [[gnu::always_inline]] __m512 value() const { return times(x, s); }
  [[gnu::always_inline]] __m512 factor(__m512 up) const {
    return plus(within(up, limit), all(1.0f));
  }
  [[gnu::always_inline]] __m512 times_value(__m512 d) const { return times(times(d, x), s); }
  [[gnu::always_inline]] __m512 times_slope(__m512 d, __m512 factor) const {
    const __m512 slope = times(s, fused(times(all(alpha), x), less(all(1.0f), s), all(1.0f)));
    return _mm512_mask_mov_ps(times(times(d, factor), slope), beyond, _mm512_setzero_ps());
  }
  [[gnu::always_inline]] __m512 through_up(__m512 d, __m512 up) const {
    const __mmask16 clamped = _mm512_cmp_ps_mask(_mm512_abs_ps(up), all(limit), _CMP_GT_OQ);
    return _mm512_mask_mov_ps(d, clamped, _mm512_setzero_ps());
  }
};

struct Gradients {
  __m512 gate, up;
};
template <typename F>
[[gnu::always_inline]] inline Gradients gradients(const F& f, __m512 up, __m512 dy) {
  return {f.times_slope(dy, f.factor(up)), f.through_up(f.times_value(dy), up)};
}

const uint16_t* row(ConstRows rows, int64_t t) {
  return static_cast<const uint16_t*>(rows.data) + t * rows.stride;
}
uint16_t* row(MutableRows rows, int64_t t) {
  return static_cast<uint16_t*>(rows.data) + t * rows.stride;
}

// Calls visit(t, i, mask) for elements [i, i + 32) of each row.
template <typename Visit>
void for_each_vector(int64_t tokens, int64_t width, const Visit& visit) {
  constexpr int64_t kElementsAThread = 4096;
  parallel_for(tokens, std::max<int64_t>(1, kElementsAThread / width),
               [&](int64_t begin, int64_t end) {
                 for (int64_t t = begin; t < end; ++t)
                   for (int64_t i = 0; i < width; i += 2 * kWords)
                     visit(t, i, first_of_32(width - i));
               });
}

template <typename F>
void activate_all(const Activate& a) {
  for_each_vector(a.tokens, a.width, [&](int64_t t, int64_t i, __mmask32 mask) {
    const Two gate = two_at(row(a.gate, t) + i, mask);
    const F first(gate.first, a.how), second(gate.second, a.how);
    Two out = {first.value(), second.value()};
    if (a.how.gated) {
      const Two up = two_at(row(a.up, t) + i, mask);
      out = {times(out.first, first.factor(up.first)), times(out.second, second.factor(up.second))};
    }
    store_two(out, row(a.out, t) + i, mask);
  });
}

template <typename F>
void differentiate_all(const ActivateBackward& a) {
  for_each_vector(a.tokens, a.width, [&](int64_t t, int64_t i, __mmask32 mask) {
    const Two gate = two_at(row(a.gate, t) + i, mask), dy = two_at(row(a.dy, t) + i, mask);
    const F first(gate.first, a.how), second(gate.second, a.how);
    if (!a.how.gated) {
      const __m512 one = all(1.0f);
      store_two({first.times_slope(dy.first, one), second.times_slope(dy.second, one)},
                row(a.d_gate, t) + i, mask);
      return;
    }
    const Two up = two_at(row(a.up, t) + i, mask);
    const Gradients of_first = gradients(first, up.first, dy.first),
                    of_second = gradients(second, up.second, dy.second);
    store_two({of_first.gate, of_second.gate}, row(a.d_gate, t) + i, mask);
    store_two({of_first.up, of_second.up}, row(a.d_up, t) + i, mask);
  });
}

struct Loops {
  Activation kind;
  void (*forward)(const Activate&);
  void (*backward)(const ActivateBackward&);
};
constexpr Loops kLoops[] = {
    {Activation::kSilu, activate_all<Silu>, differentiate_all<Silu>},
    {Activation::kGelu, activate_all<Gelu>, differentiate_all<Gelu>},
    {Activation::kGeluTanh, activate_all<GeluTanh>, differentiate_all<GeluTanh>},
    {Activation::kClampedSilu, activate_all<ClampedSilu>, differentiate_all<ClampedSilu>},
};
const Loops* loops_of(Activation kind) {
  for (const Loops& loops : kLoops)
    if (loops.kind == kind) return &loops;
  return nullptr;
}

}  // namespace

bool supports_activation_bfloat16_avx512(Activation kind) { return loops_of(kind) != nullptr; }

void activate_bfloat16_avx512(const Activate& a) { loops_of(a.how.kind)->forward(a); }

void activate_backward_bfloat16_avx512(const ActivateBackward& a) {
  loops_of(a.how.kind)->backward(a);
}

}  // namespace qlora::model::cpu
