#include "trainer/optimizer_parameters.h"

#include <algorithm>
#include <regex>

#include "base/log.h"

namespace qlora::trainer {
namespace {

void warn_of_idle_patterns(const optim::OptimizerOptions& optim,
                           const std::vector<optim::Parameter>& parameters) {
  std::vector<std::string> left;  // names that no key has matched so far
  for (const optim::Parameter& parameter : parameters) left.push_back(parameter.name);
  for (const auto& [pattern, decay] : optim.weight_decay_pattern) {
    const std::regex regex(pattern);
    const auto matches = [&](const std::string& name) { return std::regex_search(name, regex); };
    if (std::erase_if(left, matches) > 0) continue;
    if (std::ranges::any_of(parameters, matches, &optim::Parameter::name))
      log::warning(
          "optim.weight_decay_pattern: '{}' decides nothing: the first key that matches does, and "
          "earlier ones take all of its tensors; write it before them, or leave it out",
          pattern);
    else
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
  warn_of_idle_patterns(optim, parameters);
  return parameters;
}

}  // namespace qlora::trainer
