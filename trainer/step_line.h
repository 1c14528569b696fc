// A step as a line for people.
#pragma once

#include <string>

#include "trainer/metrics.h"

namespace qlora::trainer {

// "step   12/31  epoch 0.39  loss 0.4213  lr 2.90e-04  grad 1.320    1203 tok/s  supervised  31%
// 1.10 GB  0:42 left". In fewer columns (`width`, 0: any number) what matters least is left out:
// the share of supervised tokens, memory, the gradient's norm, the rate, the epoch. Behind the loss
// of pairs of answers stand the rewards' margin and accuracy: "margin 0.412  accuracy  75%".
// `colour`: the loss stands out and labels stand back.
std::string step_line(const StepMetrics& metrics, double seconds_left, size_t width = 0,
                      bool colour = false);

}  // namespace qlora::trainer
