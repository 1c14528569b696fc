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

[[gnu::always_inline]] inline __m512 forward(__m512 gate, __m512 up) {
  return _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), up);
}

struct Gradients {
  __m512 gate, up;
};
[[gnu::always_inline]] inline Gradients backward(__m512 gate, __m512 up, __m512 dy) {
  const __m512 one = _mm512_set1_ps(1.0f), s = sigmoid(gate), towards = _mm512_mul_ps(dy, s);
  const __m512 slope = _mm512_fmadd_ps(gate, _mm512_sub_ps(one, s), one);
  return {_mm512_mul_ps(_mm512_mul_ps(towards, up), slope), _mm512_mul_ps(towards, gate)};
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

}  // namespace

void swiglu_bfloat16_avx512(const Activate& a) {
  for_each_vector(a.tokens, a.width, [&](int64_t t, int64_t i, __mmask32 mask) {
    const Two gate = two_at(row(a.gate, t) + i, mask), up = two_at(row(a.up, t) + i, mask);
    store_two({forward(gate.first, up.first), forward(gate.second, up.second)}, row(a.out, t) + i,
              mask);
  });
}

void swiglu_backward_bfloat16_avx512(const ActivateBackward& a) {
  for_each_vector(a.tokens, a.width, [&](int64_t t, int64_t i, __mmask32 mask) {
    const Two gate = two_at(row(a.gate, t) + i, mask), up = two_at(row(a.up, t) + i, mask),
              dy = two_at(row(a.dy, t) + i, mask);
    const Gradients first = backward(gate.first, up.first, dy.first),
                    second = backward(gate.second, up.second, dy.second);
    store_two({first.gate, second.gate}, row(a.d_gate, t) + i, mask);
    store_two({first.up, second.up}, row(a.d_up, t) + i, mask);
  });
}

}  // namespace qlora::model::cpu
