#include "lora/separate_experts.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <utility>

#include "base/error.h"
#include "lora/adapter_names.h"
#include "lora/expert_names.h"
#include "lora/module_path.h"

namespace qlora::lora {
namespace {

constexpr const char* kPrefix = "base_model.model.";
constexpr const char* kOldRouter = "block_sparse_moe.gate";

using Sizes = std::pair<int64_t, double>;  // rank and alpha

std::string escaped(const std::string& path) {
  return std::regex_replace(path, std::regex("\\."), "\\.");
}

bool all_alike(const std::map<std::string, Sizes>& modules) {
  return std::ranges::all_of(
      modules, [&](const auto& module) { return module.second == modules.begin()->second; });
}

class Separator {
 public:
  Separator(const LoraOptions& options, const SeparateNames& names)
      : given_(options),
        names_(names),
        in_all_layers_(
            std::ranges::none_of(options.target_parameters, [](const std::string& parameter) {
              return parameter.find(".layers.") != std::string::npos;
            })) {}

  void add(const std::string& name, const at::Tensor& tensor) {
    const size_t at = name.rfind(".lora_");
    if (at == std::string::npos) {
      tensors_.emplace_back(name, tensor);
      return;
    }
    const size_t begin = std::string(kPrefix).size();
    const std::string module = name.substr(begin, at - begin), factor = name.substr(at);
    const LoraOptions own = given_.of_module(module);
    const Sizes sizes{own.rank, own.alpha};
    if (const auto expert = expert_name(module)) return add(*expert, factor, tensor, sizes);
    if (is_parameter(module))
      return put({in_old_mlp(module), names_.mlp + ".gate", names_.mlp + "\\.gate"}, factor, tensor,
                 sizes);
    put({module, "", last_name(module)}, factor, tensor, sizes);
  }

  SeparateAdapter result() && {
    LoraOptions options = given_;
    options.target_parameters.clear();
    options.targets.insert(options.targets.end(), targets_.begin(), targets_.end());
    options.rank_pattern.clear();
    options.alpha_pattern.clear();
    // Those of experts first: the last names of other modules may be theirs too.
    for (const bool of_experts : {true, false})
      for (const auto& [kind, modules] : sizes_) {
        if (kind.starts_with("experts") != of_experts) continue;
        const bool alike = all_alike(modules);
        for (const auto& [module, sizes] : modules)
          give(options, alike ? kind : escaped(module), sizes);
      }
    return {std::move(tensors_), std::move(options)};
  }

 private:
  void add(const ExpertName& expert, const std::string& factor, const at::Tensor& tensor,
           const Sizes& sizes) {
    const auto put_matrix = [&](const std::string& matrix, const at::Tensor& own) {
      const std::string end = "experts." + std::to_string(expert.index) + "." + matrix;
      const std::string stack = in_old_mlp(expert.stack);
      put({stack.substr(0, stack.rfind('.') + 1) + end, end, "experts\\.[0-9]+\\." + matrix},
          factor, own, sizes);
    };
    if (expert.parameter == "down_proj") return put_matrix(names_.down, tensor);
    const bool is_b = factor.starts_with(".lora_B");
    const int64_t rows = tensor.size(0) / 2;
    put_matrix(names_.gate, is_b ? tensor.narrow(0, 0, rows) : tensor);
    put_matrix(names_.up, is_b ? tensor.narrow(0, rows, rows) : tensor);
  }

  struct Module {
    std::string path;
    std::string end;   // names it in all layers; empty where the given targets do already
    std::string kind;  // pattern of its like
  };

  void put(const Module& module, const std::string& factor, const at::Tensor& tensor,
           const Sizes& sizes) {
    tensors_.emplace_back(kPrefix + module.path + factor, tensor);
    if (!module.end.empty()) targets_.insert(in_all_layers_ ? module.end : module.path);
    sizes_[module.kind][module.path] = sizes;
  }

  // The names of experts' matrices are those of other MLPs too, so that theirs are always said.
  void give(LoraOptions& options, const std::string& pattern, const Sizes& sizes) const {
    const bool is_expert = pattern.find("experts") != std::string::npos;
    if (is_expert || sizes.first != given_.rank) options.rank_pattern[pattern] = sizes.first;
    if (is_expert || sizes.second != given_.alpha) options.alpha_pattern[pattern] = sizes.second;
  }

  std::string in_old_mlp(std::string path) const {
    const std::string mlp = ".mlp.";
    if (const size_t at = path.rfind(mlp); at != std::string::npos)
      path.replace(at, mlp.size(), "." + names_.mlp + ".");
    return path;
  }

  const LoraOptions& given_;
  const SeparateNames& names_;
  const bool in_all_layers_;  // else the adapted layers are named by their paths
  quant::NamedTensors tensors_;
  std::set<std::string> targets_;
  std::map<std::string, std::map<std::string, Sizes>> sizes_;  // by kind, then module
};

// "base_model.model.<stack>.<expert>.w1.lora_A.weight", the old name of the MLP replaced.
struct Part {
  std::string prefix;  // "base_model.model.<stack>.<expert>."
  std::string matrix;  // gate | up | down
  std::string factor;  // ".lora_A.weight"
};

std::optional<Part> part_of(const std::string& name) {
  const size_t at = name.rfind(".lora_");
  if (at == std::string::npos || !expert_name(name.substr(0, at))) return std::nullopt;
  std::string prefix = name.substr(0, name.rfind('.', at - 1) + 1);
  const std::string matrix = expert_matrix(name.substr(prefix.size(), at - prefix.size()));
  if (matrix.empty()) return std::nullopt;
  const std::string old = ".block_sparse_moe.experts.";
  if (const size_t place = prefix.find(old); place != std::string::npos)
    prefix.replace(place, old.size(), ".mlp.experts.");
  return Part{prefix, matrix, name.substr(at)};
}

bool same_scaling(double a, double b) {
  constexpr double kRounding = 1e-9;  // of alphas that are roots
  return std::abs(a - b) <= kRounding * std::abs(a);
}

// Of gate_up_proj, whose halves have the rank and alpha of these; their scaling is kept.
Sizes joined_sizes(const std::string& path, const LoraOptions& gate, const LoraOptions& up,
                   bool one_a) {
  if (!same_scaling(gate.scaling(), up.scaling()))
    fail<FormatError>(
        "{}: gate and up of an expert have adapters of different scales, which this "
        "version does not read",
        path);
  if (one_a) return {gate.rank, gate.alpha};
  const int64_t rank = gate.rank + up.rank;
  return {rank, gate.alpha_at_rank(rank)};
}

// Of the module that A belongs to: the rank is A's, alpha what `options` say of it.
LoraOptions options_of(const io::TensorView& a, const LoraOptions& options) {
  const std::string name = peft_tensor_name(a.name);
  const size_t begin = std::string(kPrefix).size();
  LoraOptions own = options.of_path(name.substr(begin, name.rfind(".lora_") - begin));
  own.rank = a.shape[0];
  return own;
}

// A of gate, up and down, as far as they are there, by the prefix of their expert.
std::map<std::string, std::map<std::string, const io::TensorView*>> expert_factors(
    const io::TensorFile& file) {
  std::map<std::string, std::map<std::string, const io::TensorView*>> experts;
  for (const io::TensorView& view : file.tensors)
    if (const auto part = part_of(peft_tensor_name(view.name));
        part && part->factor == ".lora_A.weight" && !view.shape.empty())
      experts[part->prefix][part->matrix] = &view;
  return experts;
}

// Of gate_up_proj and down_proj in each stack: by parameter, then path.
using ParameterSizes = std::map<std::string, std::map<std::string, Sizes>>;

// What the experts in `file` have; `options` are those of the file.
ParameterSizes expert_sizes(const std::string& path, const io::TensorFile& file,
                            const LoraOptions& options) {
  ParameterSizes parameters;
  const auto give = [&](const std::string& prefix, const std::string& parameter,
                        const Sizes& sizes) {
    const auto expert = expert_name(prefix + parameter);
    const std::string stack = expert->stack.substr(std::string(kPrefix).size());
    const auto [found, is_new] = parameters[parameter].emplace(stack + "." + parameter, sizes);
    if (!is_new && found->second != sizes)
      fail<FormatError>(
          "{}: the experts of {} have adapters of different ranks, which this version "
          "does not read",
          path, stack);
  };
  for (const auto& [prefix, matrices] : expert_factors(file)) {
    if (matrices.contains("down")) {
      const LoraOptions down = options_of(*matrices.at("down"), options);
      give(prefix, "down_proj", {down.rank, down.alpha});
    }
    if (matrices.contains("gate") != matrices.contains("up"))
      fail<FormatError>(
          "{}: experts have adapters of one of gate and up alone, which this version does not read",
          path);
    if (!matrices.contains("gate")) continue;
    const io::TensorView &gate = *matrices.at("gate"), &up = *matrices.at("up");
    give(prefix, "gate_up_proj",
         joined_sizes(path, options_of(gate, options), options_of(up, options),
                      io::same_bytes(gate, up)));
  }
  return parameters;
}

void add_parameter(LoraOptions& options, const std::string& parameter) {
  if (std::ranges::count(options.target_parameters, parameter) == 0)
    options.target_parameters.push_back(parameter);
}

// As target_parameters, with patterns of their ranks and alphas.
void add_expert_parameters(LoraOptions& options, const ParameterSizes& parameters) {
  for (const auto& [parameter, modules] : parameters) {
    add_parameter(options, parameter);
    const bool alike = all_alike(modules);
    for (const auto& [module, sizes] : modules) {
      const std::string pattern = alike ? ".*\\." + parameter : escaped(module);
      // Before the adapter's own, of which these are what they came to.
      options.rank_pattern.put_first(pattern, sizes.first);
      options.alpha_pattern.put_first(pattern, sizes.second);
    }
  }
}

// Targets that name an expert's matrices: modules that this program does not have.
void drop_expert_targets(LoraOptions& options) {
  std::erase_if(options.targets, [](const std::string& target) {
    return target.find("experts.") != std::string::npos &&
           !expert_matrix(last_name(target)).empty();
  });
}

// Targets that name routers become target_parameters.
void make_routers_parameters(LoraOptions& options) {
  const auto is_router = [](const std::string& target) {
    return target.ends_with("mlp.gate") || target.ends_with(kOldRouter);
  };
  if (std::erase_if(options.targets, is_router) > 0) add_parameter(options, "gate.weight");
}

}  // namespace

SeparateAdapter separate_experts(const quant::NamedTensors& tensors, const LoraOptions& options,
                                 const SeparateNames& names) {
  Separator separator(options, names);
  for (const auto& [name, tensor] : tensors) separator.add(name, tensor);
  return std::move(separator).result();
}

std::string expert_matrix(const std::string& name) {
  if (name == "gate_proj" || name == "w1") return "gate";
  if (name == "up_proj" || name == "w3") return "up";
  return name == "w2" || name == "down_proj" ? "down" : "";
}

void retarget_separate_experts(const std::string& path, const io::TensorFile& file,
                               LoraOptions& options) {
  add_expert_parameters(options, expert_sizes(path, file, options));
  drop_expert_targets(options);
  make_routers_parameters(options);
}

void join_separate_experts(std::map<std::string, at::Tensor>& stored) {
  std::map<std::string, std::map<std::string, at::Tensor>> parts;  // by prefix, then matrix, factor
  for (auto it = stored.begin(); it != stored.end();) {
    const auto part = part_of(it->first);
    const size_t router = it->first.find(std::string(".") + kOldRouter + ".");
    if (!part && router == std::string::npos) {
      ++it;
      continue;
    }
    if (!part) {
      std::string name = it->first;
      stored[name.replace(router, std::string(".block_sparse_moe").size(), ".mlp")] = it->second;
      it = stored.erase(it);
      continue;
    }
    parts[part->prefix][part->matrix + part->factor] = it->second;
    it = stored.erase(it);
  }
  for (const auto& [prefix, tensors] : parts) {
    const auto find = [&](const std::string& name) {
      const auto found = tensors.find(name);
      return found == tensors.end() ? at::Tensor() : found->second;
    };
    const std::string a = ".lora_A.weight", b = ".lora_B.weight";
    for (const std::string& factor : {a, b})
      if (const at::Tensor down = find("down" + factor); down.defined())
        stored[prefix + "down_proj" + factor] = down;
    const at::Tensor gate = find("gate" + a), up = find("up" + a);
    const at::Tensor gate_b = find("gate" + b), up_b = find("up" + b);
    if (!gate.defined() || !up.defined() || !gate_b.defined() || !up_b.defined()) continue;
    const bool one_a = at::equal(gate, up);
    const std::string name = prefix + "gate_up_proj";
    stored[name + a] = one_a ? gate : at::cat({gate, up});
    stored[name + b] = one_a ? at::cat({gate_b, up_b}) : at::block_diag({gate_b, up_b});
  }
}

}  // namespace qlora::lora
