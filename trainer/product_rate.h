// How fast a device multiplies by a frozen weight, in a compute dtype: what a measurement may take
// goes by it, and whether the compute dtype suits the machine.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "quant/quantization_options.h"

namespace qlora::trainer {

// Operations a second, a multiplication and an addition counted as two, of 64 tokens with a weight
// of 512 x 512: a few hundredths of a second of work, on the threads in use. Draws no number that a
// run could miss.
double product_rate(const quant::QuantizationOptions& quantization, at::ScalarType compute,
                    c10::Device device);

}  // namespace qlora::trainer
