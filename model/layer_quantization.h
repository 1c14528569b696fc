// How one linear layer of a model is quantized.
#pragma once

#include "model/mlp_spec.h"
#include "quant/quantization_options.h"

namespace qlora::model {

// The model's options, or none for a layer that is never quantized (routers).
inline quant::QuantizationOptions quantization_of_layer(const LinearSpec& linear,
                                                        quant::QuantizationOptions options) {
  if (linear.never_quantized) options.method = "none";
  return options;
}

}  // namespace qlora::model
