// The norms of DoRA's rows, |W + s B A|, which no gradient passes through: taken anew whenever A or
// B has changed.
#pragma once

#include "lora/lora_linear.h"

namespace qlora::lora {

// Fills adapter->base_squares of a layer with magnitude: the sum of squares of each row of W.
void measure_base(LoraLinear& layer);

// Fills norm and factor:
//
//   |W + s B A|² = |W|² + 2 s (W Aᵀ)·B + s² B (A Aᵀ)·B
//
// row by row: one thin product with the frozen weight instead of a sum of its size.
void update_norm(LoraLinear& layer);

}  // namespace qlora::lora
