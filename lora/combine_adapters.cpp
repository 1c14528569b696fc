#include "lora/combine_adapters.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "base/seed.h"
#include "lora/adapter_file.h"
#include "lora/adapter_fit.h"
#include "lora/attach.h"
#include "lora/expert_names.h"

namespace qlora::lora {
namespace {

constexpr const char* kMethods[] = {"linear",      "cat",       "ties",
                                    "dare_linear", "dare_ties", "magnitude_prune"};

bool elects_signs(const std::string& method) { return method == "ties" || method == "dare_ties"; }
bool draws(const std::string& method) { return method.starts_with("dare_"); }
bool prunes(const std::string& method) { return method != "linear" && method != "cat"; }

// The numbers of largest magnitude; of equal ones the first.
at::Tensor keep_largest(const at::Tensor& values, double density) {
  if (density >= 1) return values;
  const at::Tensor flat = values.reshape({-1});
  const auto kept = static_cast<int64_t>(density * static_cast<double>(flat.numel()));
  const at::Tensor order =
      std::get<1>(at::sort(flat.abs(), /*stable=*/true, /*dim=*/0, /*descending=*/true))
          .narrow(0, 0, kept);
  at::Tensor pruned = at::zeros_like(flat);
  pruned.index_copy_(0, order, flat.index_select(0, order));
  return pruned.view(values.sizes());
}

// Each number with chance `density`, divided by it.
at::Tensor keep_drawn(const at::Tensor& values, double density, uint64_t key) {
  if (density >= 1) return values;
  at::Tensor mask = at::empty(values.sizes(), at::kFloat);
  auto* keep = mask.mutable_data_ptr<float>();
  const auto chance = static_cast<float>(density);
  for (int64_t i = 0; i < mask.numel(); ++i)
    keep[i] = uniform(key, static_cast<uint64_t>(i)) < chance ? 1.0f : 0.0f;
  return values.mul(mask.to(values.device())).div_(density);
}

// Σ weight_i values_i, or with signs elected the mean over those that have the elected one.
at::Tensor sum(const std::vector<at::Tensor>& values, const std::vector<double>& weights,
               const CombineOptions& options) {
  const bool elect = elects_signs(options.method);
  at::Tensor elected;  // 1 or -1
  if (elect) {
    at::Tensor votes = at::zeros_like(values[0]);
    for (const at::Tensor& one : values)
      votes.add_(options.majority_sign == "total" ? one : one.sign());
    elected = votes.ge(0).to(at::kFloat).mul_(2).sub_(1);
  }
  at::Tensor total = at::zeros_like(values[0]), count = at::zeros_like(values[0]);
  for (size_t i = 0; i < values.size(); ++i) {
    at::Tensor weighted = values[i].mul(weights[i]);
    if (elect) {
      const at::Tensor agrees = values[i].sign().eq(elected);
      weighted.mul_(agrees);
      count.add_(agrees);
    }
    total.add_(weighted);
  }
  return elect ? total.div_(count.clamp_min_(1)) : total;
}

// The factors of one module, in the order of the adapters, with the scaling of each.
struct ModuleFactors {
  std::string name;
  std::vector<Factors> factors;
  std::vector<double> scaling;
};

Factors side_by_side(const ModuleFactors& module, const CombineOptions& options) {
  std::vector<at::Tensor> a, b;
  for (size_t i = 0; i < module.factors.size(); ++i) {
    a.push_back(module.factors[i].a.mul(options.weights[i]).mul_(module.scaling[i]));
    b.push_back(module.factors[i].b);
  }
  return {at::cat(a, 0), at::cat(b, 1)};
}

Factors combine_module(const ModuleFactors& module, const CombineOptions& options) {
  if (options.method == "cat") return side_by_side(module, options);
  std::vector<double> weights_a, weights_b;
  for (size_t i = 0; i < module.factors.size(); ++i) {
    const double weight = options.weights[i] * module.scaling[i];
    weights_b.push_back(std::sqrt(std::abs(weight)));
    weights_a.push_back(weight < 0 ? -weights_b.back() : weights_b.back());
  }
  const auto pruned = [&](const at::Tensor& values, size_t adapter, const char* factor) {
    if (!prunes(options.method)) return values;
    if (!draws(options.method)) return keep_largest(values, *options.density);
    return keep_drawn(
        values, *options.density,
        random_key(options.seed, fmt::format("{}.{}.{}", adapter, module.name, factor)));
  };
  std::vector<at::Tensor> a, b;
  for (size_t i = 0; i < module.factors.size(); ++i) {
    a.push_back(pruned(module.factors[i].a, i, "lora_A"));
    b.push_back(pruned(module.factors[i].b, i, "lora_B"));
  }
  return {sum(a, weights_a, options), sum(b, weights_b, options)};
}

void require_same_modules(const PlainAdapter& one, const PlainAdapter& other) {
  for (const auto& [module, factors] : one.factors)
    if (!other.factors.contains(module)) {
      fail<ConfigError>(
          "--combine: the adapters must adapt the same modules; {} adapts {}, {} does not",
          one.name, module, other.name);
    }
}

void require_same_rank(const PlainAdapter& one, const PlainAdapter& other,
                       const std::string& method) {
  for (const auto& [module, factors] : one.factors) {
    const int64_t rank = factors.a.size(0), found = other.factors.at(module).a.size(0);
    if (rank != found) {
      fail<ConfigError>(
          "--combine {} needs adapters of the same rank; in {} the rank of {} is {}, that of {} is "
          "{}; --combine cat takes any",
          method, module, one.name, rank, other.name, found);
    }
  }
}

// A module's path as the regular expression that only it matches.
std::string as_pattern(const std::string& module) {
  std::string pattern;
  for (const char letter : module) {
    if (letter == '.') pattern += '\\';
    pattern += letter;
  }
  return pattern;
}

// The largest rank for all, patterns for the others.
LoraOptions options_of(const LoraOptions& first, const GivenFactors& factors) {
  LoraOptions options;
  options.dropout = first.dropout;
  options.targets.clear();
  options.rank = 1;
  std::set<std::string> parameters;  // of which all experts of a stack are one
  for (const auto& [module, pair] : factors) {
    if (is_parameter(module))
      parameters.insert(parameter_path(module));
    else
      options.targets.push_back(module);
    options.rank = std::max(options.rank, pair.a.size(0));
  }
  options.target_parameters.assign(parameters.begin(), parameters.end());
  options.alpha = static_cast<double>(options.rank);
  for (const auto& [module, pair] : factors) {
    const int64_t rank = pair.a.size(0);
    if (rank == options.rank) continue;
    const std::string pattern = as_pattern(is_parameter(module) ? parameter_path(module) : module);
    options.rank_pattern[pattern] = rank;
    options.alpha_pattern[pattern] = static_cast<double>(rank);
  }
  options.validate();
  return options;
}

// Leaves a model's slots empty.
class BorrowedSlots {
 public:
  explicit BorrowedSlots(const std::vector<LinearGroup*>& groups) : parts_(groups) {}
  ~BorrowedSlots() { empty_slots(parts_); }
  BorrowedSlots(const BorrowedSlots&) = delete;
  BorrowedSlots& operator=(const BorrowedSlots&) = delete;

 private:
  TrainableParts parts_;
};

}  // namespace

void CombineOptions::validate(size_t num_adapters) const {
  if (std::ranges::find(kMethods, method) == std::end(kMethods))
    fail<ConfigError>("--combine must be one of {}, found '{}'", fmt::join(kMethods, ", "), method);
  if (num_adapters == 0) throw ConfigError("--combine needs --adapter, once for each adapter");
  if (num_adapters == 1 && prunes(method)) {
    fail<ConfigError>("--combine {} needs two adapters or more; linear and cat weigh a single one",
                      method);
  }
  if (weights.size() != num_adapters) {
    fail<ConfigError>("--weights must hold one number for each adapter ({}), found {}",
                      num_adapters, weights.size());
  }
  for (const double weight : weights)
    if (!std::isfinite(weight)) fail<ConfigError>("--weights must be finite, found {}", weight);
  if (prunes(method) != density.has_value()) {
    fail<ConfigError>("--density {} --combine {}",
                      density ? "is what the other methods prune to; leave it out with"
                              : "must say what share of the numbers is kept by",
                      method);
  }
  if (density && !(*density > 0 && *density <= 1))
    fail<ConfigError>("--density must be above 0 and at most 1, found {}", *density);
  if (majority_sign != "total" && majority_sign != "frequency")
    fail<ConfigError>("--majority-sign must be total or frequency, found '{}'", majority_sign);
}

PlainAdapter read_plain_adapter(const std::string& directory,
                                const std::vector<LinearGroup*>& groups) {
  PlainAdapter adapter{directory, read_adapter_options(directory), {}};
  BaseView base;
  base.place = "the model";
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers()) base.linear.push_back(layer.name);
  drop_unmatched_targets(directory, base, adapter.options);
  if (adapter.options.use_dora) {
    fail<ConfigError>(
        "{}: an adapter with DoRA magnitudes cannot be combined with others: a magnitude belongs "
        "to its own directions",
        directory);
  }
  if (adapter.options.bias != "none") {
    fail<ConfigError>(
        "{}: an adapter with trained biases (bias: {}) cannot be combined with others", directory,
        adapter.options.bias);
  }
  const BorrowedSlots borrowed(groups);
  AdapterSet slots(adapter.options, groups, at::kFloat, 0);
  read_adapter_tensors(directory, slots);
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers())
      if (layer.adapter) adapter.factors[layer.name] = {layer.adapter->a, layer.adapter->b};
  return adapter;
}

CombinedAdapter combine_adapters(const std::vector<PlainAdapter>& adapters,
                                 const CombineOptions& options) {
  at::NoGradGuard no_grad;
  options.validate(adapters.size());
  for (const PlainAdapter& other : adapters) {
    require_same_modules(adapters[0], other);
    require_same_modules(other, adapters[0]);
    if (options.method != "cat") require_same_rank(adapters[0], other, options.method);
  }
  CombinedAdapter combined;
  Progress progress("combining adapters", static_cast<int64_t>(adapters[0].factors.size()),
                    "modules");
  for (const auto& [name, factors] : adapters[0].factors) {
    ModuleFactors module{name, {}, {}};
    for (const PlainAdapter& adapter : adapters) {
      module.factors.push_back(adapter.factors.at(name));
      module.scaling.push_back(adapter.options.of_module(name).scaling());
    }
    combined.factors[name] = combine_module(module, options);
    progress.advance();
  }
  combined.options = options_of(adapters[0].options, combined.factors);
  return combined;
}

}  // namespace qlora::lora
