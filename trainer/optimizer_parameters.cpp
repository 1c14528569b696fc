#include "trainer/optimizer_parameters.h"

namespace qlora::trainer {

std::vector<optim::Parameter> optimizer_parameters(const lora::AdapterSet& adapters,
                                                   const lora::LoraOptions& lora,
                                                   const optim::OptimizerOptions& optim) {
  std::vector<optim::Parameter> parameters;
  for (const lora::AdapterTensor& tensor : adapters.tensors()) {
    const bool is_b = tensor.name.ends_with(".lora_B.weight");
    parameters.push_back({.name = tensor.name,
                          .value = tensor.value,
                          .gradient = tensor.gradient,
                          .lr_scale = is_b ? lora.plus_lr_ratio : 1.0,
                          .weight_decay = optim.weight_decay_of(tensor.name)});
  }
  return parameters;
}

}  // namespace qlora::trainer
