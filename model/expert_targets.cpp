#include "model/expert_targets.h"

#include <algorithm>
#include <set>

#include "lora/expert_adapters.h"
#include "lora/expert_names.h"
#include "lora/module_path.h"
#include "model/default_targets.h"

namespace qlora::model {
namespace {

constexpr const char* kGateUp = "gate_up_proj";

// The parameter that a target stands for; empty for another module.
std::string parameter_of(const std::string& target) {
  const std::string matrix = lora::expert_matrix(target);
  if (matrix == "down") return "down_proj";
  if (!matrix.empty() || target == kGateUp) return kGateUp;
  return target == "gate" ? "gate.weight" : "";
}

// The last names of all attention's layers, and of the routers' and experts' parameters.
void add_all(const Architecture& a, std::set<std::string>& modules,
             std::set<std::string>& parameters) {
  for (const BlockSpec& block : a.decoder.kinds)
    for (const Branch& branch : block.branches)
      for (const std::vector<LinearSpec>& group : branch.groups())
        for (const LinearSpec& linear : group) {
          const std::string module = a.module(0, linear.names);
          if (branch.attention()) modules.insert(lora::last_name(module));
          if (!lora::is_parameter(module)) continue;
          const bool is_expert = lora::expert_name(module).has_value();
          parameters.insert(lora::last_name(module) + (is_expert ? "" : ".weight"));
        }
}

}  // namespace

void resolve_expert_targets(const Architecture& a, lora::LoraOptions& options) {
  name_default_targets(a, options);
  if (!a.targets_mean_experts) return;
  std::set<std::string> modules,
      parameters(options.target_parameters.begin(), options.target_parameters.end());
  const bool given = parameters.contains(kGateUp);
  for (const std::string& target : options.targets) {
    const std::string parameter = parameter_of(target);
    if (target == "all-linear")
      add_all(a, modules, parameters);
    else if (parameter.empty())
      modules.insert(target);
    else
      parameters.insert(parameter);
  }
  options.targets.assign(modules.begin(), modules.end());
  options.target_parameters.assign(parameters.begin(), parameters.end());
  if (given || !parameters.contains(kGateUp)) return;
  lora::give_gate_up_both_ranks(options);
}

std::optional<lora::SeparateNames> separate_names(const Architecture& a) {
  for (const BlockSpec& block : a.decoder.kinds)
    for (const Branch& branch : block.branches) {
      const ExpertsSpec* experts = branch.experts();
      if (!experts || experts->files.gate.empty()) continue;
      const auto last = [](const std::string& path) { return lora::last_name(path); };
      lora::SeparateNames names{"mlp", last(experts->files.gate), last(experts->files.up),
                                last(experts->files.down)};
      for (const auto& [module, in_files] : a.file_names)
        if (module == names.mlp) names.mlp = in_files;
      return names;
    }
  return std::nullopt;
}

}  // namespace qlora::model
