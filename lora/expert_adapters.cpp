#include "lora/expert_adapters.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <set>

#include "base/error.h"
#include "lora/expert_names.h"
#include "lora/rows_in_turn.h"
#include "lora/separate_experts.h"

namespace qlora::lora {
namespace {

// "base_model.model." + module + ".lora_A.weight", of an expert.
struct Factor {
  ExpertName expert;
  bool is_b;
};

std::optional<Factor> factor_of(const std::string& tensor) {
  const size_t at = tensor.rfind(".lora_");
  if (at == std::string::npos) return std::nullopt;
  const auto expert = expert_name(tensor.substr(0, at));
  if (!expert) return std::nullopt;
  return Factor{*expert, tensor.substr(at) == ".lora_B.weight"};
}

// The name that the stack's tensor has in a file; `outer`: stacks whose down_proj is adapted.
std::string stacked_name(const Factor& factor, const std::set<std::string>& outer) {
  const bool inner =
      factor.expert.parameter == "gate_up_proj" && outer.contains(factor.expert.stack);
  return factor.expert.stack + (inner ? ".base_layer" : "") +
         (factor.is_b ? ".lora_B.weight" : ".lora_A.weight");
}

template <typename Tensors, typename NameOf>
std::set<std::string> stacks_with_down(const Tensors& tensors, const NameOf& name_of) {
  std::set<std::string> stacks;
  for (const auto& tensor : tensors)
    if (const auto factor = factor_of(name_of(tensor));
        factor && factor->expert.parameter == "down_proj")
      stacks.insert(factor->expert.stack);
  return stacks;
}

at::Tensor stacked(const std::vector<at::Tensor>& experts, bool is_b) {
  if (!is_b) return at::cat(experts);
  return at::stack(experts, 2).flatten(1);  // [out, rank, experts]
}

}  // namespace

void give_gate_up_both_ranks(LoraOptions& options) {
  const std::string pattern = ".*\\.gate_up_proj";
  const int64_t rank = options.rank_pattern.try_emplace(pattern, 2 * options.rank).first->second;
  options.alpha_pattern.try_emplace(pattern, options.alpha_at_rank(rank));
}

quant::NamedTensors with_experts_stacked(const std::vector<AdapterTensor>& described,
                                         const quant::NamedTensors& tensors) {
  const auto outer = stacks_with_down(tensors, [](const auto& named) { return named.first; });
  std::set<std::string> in_turn;
  for (const AdapterTensor& tensor : described)
    if (tensor.in_turn) in_turn.insert(tensor.name);
  quant::NamedTensors result;
  std::map<std::string, std::vector<at::Tensor>> experts;
  for (const auto& [name, tensor] : tensors) {
    const auto factor = factor_of(name);
    if (!factor) {
      result.emplace_back(name, tensor);
      continue;
    }
    std::vector<at::Tensor>& stack = experts[stacked_name(*factor, outer)];
    check(static_cast<int64_t>(stack.size()) == factor->expert.index,
          "{}: all experts of a parameter have adapters, or none", name);
    stack.push_back(in_turn.contains(name) ? rows_in_turn(tensor) : tensor);
  }
  for (const auto& [name, stack] : experts)
    result.emplace_back(name, stacked(stack, name.ends_with(".lora_B.weight")));
  return result;
}

void take_experts_apart(const std::string& path, const std::vector<AdapterTensor>& wanted,
                        std::map<std::string, at::Tensor>& stored) {
  join_separate_experts(stored);
  const auto outer =
      stacks_with_down(wanted, [](const AdapterTensor& tensor) { return tensor.name; });
  std::map<std::string, std::vector<const AdapterTensor*>> stacks;  // the experts, in their order
  for (const AdapterTensor& tensor : wanted)
    if (const auto factor = factor_of(tensor.name); factor && !stored.contains(tensor.name))
      stacks[stacked_name(*factor, outer)].push_back(&tensor);
  for (const auto& [name, experts] : stacks) {
    const auto found = stored.find(name);
    if (found == stored.end()) continue;
    const auto count = static_cast<int64_t>(experts.size());
    const at::Tensor all = found->second;
    const bool is_b = name.ends_with(".lora_B.weight");
    if (all.dim() != 2 || all.size(is_b ? 1 : 0) % count != 0)
      fail<FormatError>(
          "{}: tensor {} holds the adapters of {} experts; [{}] does not divide into "
          "as many",
          path, name, count, fmt::join(all.sizes(), ", "));
    const int64_t rank = all.size(is_b ? 1 : 0) / count;
    for (int64_t e = 0; e < count; ++e) {
      const AdapterTensor& expert = *experts[static_cast<size_t>(e)];
      const at::Tensor own =
          is_b ? all.unflatten(1, {rank, count}).select(2, e) : all.narrow(0, e * rank, rank);
      stored[expert.name] = expert.in_turn ? rows_in_halves(own) : own;
    }
    stored.erase(name);
  }
}

}  // namespace qlora::lora
