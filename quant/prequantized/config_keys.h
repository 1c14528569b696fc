// The keys of a quantization_config. Each reader lists what it reads; lists of what changes nothing
// here are below. What else is set could change the weights, and is refused or named.
#pragma once

#include <span>
#include <string_view>

#include "io/json.h"

namespace qlora::quant {

using ConfigKeys = std::span<const std::string_view>;

// How GPTQ, AWQ and auto-round chose codes and scales, and which kernels read them.
ConfigKeys keys_of_choosing();

// FormatError for what changes the layers' computation: rotations of their inputs that are made as
// the model runs. A warning for activations that are quantized, for weights that were rotated, for
// an adapter within, and one, once a file, that names the keys which are in neither list and not
// among those that every format may have.
void check_config_keys(const io::JsonNode& config, ConfigKeys read, ConfigKeys harmless = {});

}  // namespace qlora::quant
