// Llama 1 to 3 and what shares their block: SmolLM2, TinyLlama, Falcon 3 (formats spec 6.1, 9.6).
#pragma once

#include "model/families/family.h"

namespace qlora::model {

Family llama_family();

}  // namespace qlora::model
