#include <vector>

#include "base/element.h"
#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/elements/with_element_type.h"
#include "trainer/loss_kernels.h"

namespace qlora::trainer::cpu {
namespace {

// `powers`: room for the row's exponentials.
template <typename T>
[[gnu::always_inline]] inline float row_loss(T* __restrict row, int64_t target, int64_t vocab,
                                             float scale, bool gradient, float* __restrict powers) {
  float most[kLanes], lanes[kLanes] = {};
  for (float& m : most) m = -3.0e38f;
  const int64_t whole = vocab / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) {
      const float x = load(row[i + j]);
      most[j] = x > most[j] ? x : most[j];
    }
  float top = most[0];
  for (float m : most) top = m > top ? m : top;
  for (int64_t i = whole; i < vocab; ++i) top = load(row[i]) > top ? load(row[i]) : top;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) {
      powers[i + j] = vector_exp(load(row[i + j]) - top);
      lanes[j] += powers[i + j];
    }
  for (int64_t i = whole; i < vocab; ++i) {
    powers[i] = vector_exp(load(row[i]) - top);
    lanes[i - whole] += powers[i];
  }
  const float sum = sum_lanes(lanes), at_target = load(row[target]);
  const float loss = std::log(sum) + top - at_target;
  if (gradient) {
    const float factor = scale / sum;
    const float target_gradient = powers[target] * factor - scale;
    for (int64_t i = 0; i < vocab; ++i) store(powers[i] * factor, row[i]);
    store(target_gradient, row[target]);
  }
  return loss;
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_LOSS_ROWS(T)                                                                    \
  QLORA_VECTORIZED void rows(T* logits, const int64_t* targets, int64_t begin, int64_t end,   \
                             int64_t vocab, const float* scale, bool gradient, float* powers, \
                             float* loss) {                                                   \
    for (int64_t r = begin; r < end; ++r)                                                     \
      loss[r] = row_loss(logits + r * vocab, targets[r], vocab, gradient ? scale[r] : 0.0f,   \
                         gradient, powers);                                                   \
  }

QLORA_LOSS_ROWS(float)
QLORA_LOSS_ROWS(uint16_t)
QLORA_LOSS_ROWS(Float16)
#undef QLORA_LOSS_ROWS

}  // namespace

void softmax_cross_entropy(const SoftmaxCrossEntropy& a) {
  if (has_avx512_bfloat16() && a.type == quant::ElementType::kBFloat16)
    return softmax_cross_entropy_bfloat16_avx512(a);
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.rows, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> powers(static_cast<size_t>(a.vocab));
      rows(static_cast<T*>(a.logits), a.targets, begin, end, a.vocab, a.scale, a.gradient,
           powers.data(), a.loss);
    });
  });
}

}  // namespace qlora::trainer::cpu
