// The factory of frozen weights: the one place that maps quantization.method to a format.
#pragma once

#include <memory>
#include <string>

#include "quant/frozen_weight.h"
#include "quant/quantization_options.h"

namespace qlora::quant {

// True if the options leave this module in 16 bit: its path equals an entry of skip_modules, or
// holds it as a component.
bool is_skipped(const QuantizationOptions& options, const std::string& module);

// True if make_frozen_weight() quantizes this module.
bool is_quantized(const QuantizationOptions& options, const std::string& module);

// weight [out, in] or [experts, out, in] as loaded (contiguous, floating), on the device where it
// is to live. Error naming the module and the place of a value that the format cannot hold.
std::unique_ptr<FrozenWeight> make_frozen_weight(const at::Tensor& weight,
                                                 const QuantizationOptions& options,
                                                 const std::string& module);

}  // namespace qlora::quant
