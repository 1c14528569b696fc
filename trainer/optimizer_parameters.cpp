#include "trainer/optimizer_parameters.h"

#include <algorithm>
#include <regex>

#include "base/log.h"

namespace qlora::trainer {
namespace {

void warn_of_unmatched_patterns(const optim::OptimizerOptions& optim,
                                const std::vector<optim::Parameter>& parameters) {
  for (const auto& [pattern, decay] : optim.weight_decay_pattern) {
    const std::regex regex(pattern);
    if (std::ranges::none_of(parameters, [&](const optim::Parameter& parameter) {
          return std::regex_search(parameter.name, regex);
        }))
      log::warning(
          "optim.weight_decay_pattern: '{}' matches no trained tensor and changes nothing; their "
          "names are such as {}",
          pattern, parameters.empty() ? "none" : parameters.front().name);
  }
}

}  // namespace

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
  warn_of_unmatched_patterns(optim, parameters);
  return parameters;
}

}  // namespace qlora::trainer
