// What Python needs to load a model with transformers 5 and PEFT.
#pragma once

#include <string>

#include "lora/adapter_base.h"

namespace qlora::exporting {

// "pip install torch transformers peft optimum gptqmodel": with what transformers asks for before
// it loads the base in the way that the card says.
std::string install_command(const lora::AdapterBase& base);

}  // namespace qlora::exporting
