// Paths of modules: "model.layers.0.self_attn.q_proj".
#pragma once

#include <string>

namespace qlora::lora {

// "q_proj"
inline std::string last_name(const std::string& path) { return path.substr(path.rfind('.') + 1); }

}  // namespace qlora::lora
