// Models that are known by name and not read: what they compute that this version does not.
#pragma once

#include <string>

namespace qlora::model {

// "multi-head latent attention (...)" for the model_type "deepseek_v3"; empty for any other name.
std::string missing_for_model_type(const std::string& model_type);
// The same for general.architecture of a GGUF file, "deepseek2".
std::string missing_for_gguf(const std::string& architecture);

}  // namespace qlora::model
