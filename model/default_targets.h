// The targets that PEFT takes for a model of a family where nobody names any: its constant
// TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, PEFT 0.21.
#pragma once

#include <string>
#include <vector>

#include "lora/lora_options.h"
#include "model/architecture.h"

namespace qlora::model {

// {"q_proj", "v_proj"} for Llama; empty where PEFT has none and demands names.
std::vector<std::string> peft_default_targets(const Architecture& architecture);

// Puts them in the place of "peft-default" among options.targets. ConfigError where there are none.
void name_default_targets(const Architecture& architecture, lora::LoraOptions& options);

}  // namespace qlora::model
