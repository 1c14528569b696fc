// What every format asks of the output of FrozenWeight::dequantize_rows().
#pragma once

#include "quant/frozen_weight.h"

namespace qlora::quant {

// Error that names `op` unless the weight has rows [begin, end) of the expert, and `out` is
// contiguous, on its device and holds as many elements.
void check_row_output(const FrozenWeight& weight, int64_t expert, int64_t begin, int64_t end,
                      const at::Tensor& out, const char* op);

}  // namespace qlora::quant
