// 7 times as fast as the plain loops: a bf16 element is two instructions away from fp32, its
// rounding one, and the exponential half as long.
#include "trainer/loss_kernels.h"

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/bfloat16.h"
#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "base/bfloat16_vectors_avx512.h"

namespace qlora::trainer::cpu {
namespace {
using namespace avx512;

constexpr int64_t kPairs = 2 * kWords;  // elements of a register
constexpr float kLowest = -3.0e38f;

struct Row {
  uint16_t* data;
  int64_t count;

  __mmask32 mask(int64_t i) const { return first_of_32(count - i); }
  // Elements [i, i + 32); past the end `rest`, twice a bf16.
  __m512i at(int64_t i, int rest) const {
    return _mm512_mask_loadu_epi16(_mm512_set1_epi32(rest), mask(i), data + i);
  }
};

float largest(const Row& row) {
  constexpr int kLowestTwice = static_cast<int>(0xff7fff7fu);
  __m512 first = _mm512_set1_ps(kLowest), second = first;
  for (int64_t i = 0; i < row.count; i += kPairs) {
    const __m512i words = row.at(i, kLowestTwice);
    first = _mm512_max_ps(first_of(words), first);
    second = _mm512_max_ps(second_of(words), second);
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(first, second));
}

// powers[...] = e^(x - top) for the row's elements, first ones and second ones of words in turn;
// their sum.
float exponentials(const Row& row, float top, float* powers) {
  constexpr int kMinusInfinityTwice = static_cast<int>(0xff80ff80u);
  const __m512 scale = _mm512_set1_ps(kLog2e), shift = _mm512_set1_ps(top * kLog2e);
  __m512 first_sum = _mm512_setzero_ps(), second_sum = first_sum;
  for (int64_t i = 0; i < row.count; i += kPairs) {
    const __m512i words = row.at(i, kMinusInfinityTwice);
    const __m512 first = exp2_of(_mm512_fmsub_ps(first_of(words), scale, shift));
    const __m512 second = exp2_of(_mm512_fmsub_ps(second_of(words), scale, shift));
    _mm512_storeu_ps(powers + i, first);
    _mm512_storeu_ps(powers + i + kWords, second);
    first_sum = _mm512_add_ps(first_sum, first);
    second_sum = _mm512_add_ps(second_sum, second);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(first_sum, second_sum));
}

float row_loss(const Row& row, int64_t target, float scale, bool gradient, float* powers) {
  const float top = largest(row), at_target = bfloat16_to_float(row.data[target]);
  const float sum = exponentials(row, top, powers);
  if (gradient) {
    const float factor = scale / sum;
    const __m512 factors = _mm512_set1_ps(factor);
    for (int64_t i = 0; i < row.count; i += kPairs) {
      const __m512 first = _mm512_mul_ps(_mm512_loadu_ps(powers + i), factors);
      const __m512 second = _mm512_mul_ps(_mm512_loadu_ps(powers + i + kWords), factors);
      _mm512_mask_storeu_epi16(row.data + i, row.mask(i), woven(rounded(first, second)));
    }
    const int64_t in_word = target % 2, word = target % kPairs / 2;
    const float power = powers[target / kPairs * kPairs + in_word * kWords + word];
    row.data[target] = float_to_bfloat16(power * factor - scale);
  }
  return std::log(sum) + top - at_target;
}

}  // namespace

void softmax_cross_entropy_bfloat16_avx512(const SoftmaxCrossEntropy& a) {
  auto* logits = static_cast<uint16_t*>(a.logits);
  parallel_for(a.rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> powers(static_cast<size_t>(a.vocab + kPairs));
    for (int64_t r = begin; r < end; ++r)
      a.loss[r] = row_loss({logits + r * a.vocab, a.vocab}, a.targets[r],
                           a.gradient ? a.scale[r] : 0.0f, a.gradient, powers.data());
  });
}

}  // namespace qlora::trainer::cpu
