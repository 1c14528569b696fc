#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::trainer {

// For each row of logits: loss[row] = logsumexp - logits[target], and, if `gradient`, the logits
// become scale[row] · (softmax - onehot(target)) in place.
struct SoftmaxCrossEntropy {
  void* logits;  // [rows, vocab], contiguous
  quant::ElementType type;
  const int64_t* targets;  // on the logits' device
  int64_t rows, vocab;
  const float* scale;  // [rows], on the logits' device; null without a gradient
  bool gradient;
  float* loss;  // [rows]
};

namespace cpu {
void softmax_cross_entropy(const SoftmaxCrossEntropy& arguments);
// The same of bf16 logits, where has_avx512_bfloat16().
void softmax_cross_entropy_bfloat16_avx512(const SoftmaxCrossEntropy& arguments);
}  // namespace cpu
namespace cuda {
void softmax_cross_entropy(const SoftmaxCrossEntropy& arguments, void* stream);
}

}  // namespace qlora::trainer
