// Brings an adapter's directory and the base it is to work on together: what of the file is used,
// and the base that it belongs to. Every command that takes an adapter goes through here.
#pragma once

#include <string>

#include "lora/adapter_fit.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// lora::fit_adapter() on the model of `model_path`, of which the headers are read, and embedding
// and head if the adapter has its own. ConfigError, FormatError, IoError.
lora::FittedAdapter fit_adapter(const std::string& adapter, const std::string& model_path);

// An adapter that PEFT began with pissa or olora, and whose file does not record its base, belongs
// to the base less the product it began with. Takes that off the loaded base, as PEFT does on
// loading: of weights that are quantized from those that they stand for, for olora; pissa needs 16
// bits. `fitted`: of the adapter on this base. ConfigError naming init_lora_weights if it cannot be
// done.
void take_off_initial_product(const std::string& adapter, const lora::LoraOptions& fitted,
                              const quant::QuantizationOptions& quantization, BaseModel& base);

// ConfigError unless the adapter's record, if it has one, names this base.
void require_same_base(const std::string& adapter, const BaseModel& base);

}  // namespace qlora::recipes
