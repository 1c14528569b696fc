// What quantization.skip_modules may name in a model.
#pragma once

#include <string>

#include "model/architecture.h"
#include "quant/quantization_options.h"

namespace qlora::model {

// ConfigError, which begins with `key` and lists what there is, if an entry of skip_modules that is
// not there by default names no linear layer, norm or embedding of the model.
void require_skip_modules(const quant::QuantizationOptions& options,
                          const Architecture& architecture, const std::string& key);

}  // namespace qlora::model
