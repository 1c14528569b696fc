// Modules that are parameters, and no Linear, in transformers 5: experts, which it holds stacked,
// and routers. PEFT names them by target_parameters, and so does this program: no pattern of
// targets matches one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace qlora::lora {

// "model.layers.0.mlp.experts.3.gate_up_proj": expert 3 of gate_up_proj in the stack
// "model.layers.0.mlp.experts".
struct ExpertName {
  std::string stack, parameter;
  int64_t index = 0;
};
std::optional<ExpertName> expert_name(const std::string& module);

bool is_parameter(const std::string& module);

// What PEFT's target_parameters and patterns of ranks are matched with: the name of an expert
// without its number, of any other module that of its weight ("model.layers.0.mlp.gate.weight").
std::string parameter_path(const std::string& module);

}  // namespace qlora::lora
