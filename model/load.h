// Builds a CausalLm from files, one tensor at a time: read, cast to model.dtype, quantize, forget.
// Peak memory is the model as it will be kept plus one tensor.
#pragma once

#include <memory>
#include <string>

#include "model/causal_lm.h"
#include "model/model_options.h"
#include "model/weight_source.h"
#include "quant/quantization_options.h"

namespace qlora::model {

// "bfloat16", "float16", "float32"; anything else is a ConfigError naming `key`.
at::ScalarType dtype_from_string(const std::string& name, const std::string& key);

// The linear layers of the decoder get the quantization of the options; embedding, head and norms
// stay in model.dtype (norm weights are kept as fp32 values rounded to it). Warns about tensors
// that no one asked for. Errors of open_weights, read_tensor and make_frozen_weight.
std::unique_ptr<CausalLm> load_model(WeightSource& source, const ModelOptions& options,
                                     const quant::QuantizationOptions& quantization,
                                     at::Device device, at::ScalarType compute);

// "134.5 M weights, nf4+dq: 71 MB (210 layers), bfloat16: 57 MB"
std::string describe(const CausalLm& model);

}  // namespace qlora::model
