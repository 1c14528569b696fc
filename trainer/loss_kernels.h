#pragma once

#include <cstdint>

namespace qlora::trainer::cpu {

// For each row of logits [rows, vocab] (T: float, uint16_t for bf16 bits, or Float16): loss[row] =
// logsumexp - logits[target], and, if `gradient`, the logits become scale · (softmax -
// onehot(target)) in place.
template <typename T>
void softmax_cross_entropy(T* logits, const int64_t* targets, int64_t rows, int64_t vocab,
                           float scale, bool gradient, float* loss);

}  // namespace qlora::trainer::cpu
