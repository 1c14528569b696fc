#include "trainer/optimizer_parameters.h"

#include <regex>
#include <string>
#include <vector>

#include "base/compiled_pattern.h"
#include "base/idle_pattern.h"
#include "base/log.h"

namespace qlora::trainer {
namespace {

void warn_of_idle_patterns(const optim::OptimizerOptions& optim,
                           const std::vector<optim::Parameter>& parameters) {
  constexpr const char* kKey = "optim.weight_decay_pattern";
  std::vector<std::string> names;
  for (const optim::Parameter& parameter : parameters) names.push_back(parameter.name);
  const auto matches = [](const std::string& pattern, const std::string& name) {
    return std::regex_search(name, compiled_pattern(pattern));
  };
  for (const IdlePattern& idle : find_idle_patterns(optim.weight_decay_pattern, names, matches))
    if (idle.matches)
      log::warning("{}", idle_pattern_sentence(kKey, idle.pattern, "tensors"));
    else
      log::warning(
          "{}: '{}' matches no trained tensor and changes nothing; their names are such as {}",
          kKey, idle.pattern, names.empty() ? "none" : names.front());
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
