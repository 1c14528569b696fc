#include "quant/prequantized/compressed_groups.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>

#include "base/warn_once.h"
#include "io/known_keys.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr std::string_view kRead[] = {"config_groups", "format", "sparsity_config",
                                      "transform_config"};
// What the tensors say, and facts of the whole file.
constexpr std::string_view kHarmless[] = {"quantization_status", "global_compression_ratio",
                                          "run_compressed", "use_optimized_inference"};
constexpr std::string_view kOfGroup[] = {"weights", "input_activations", "output_activations",
                                         "targets", "format"};
// block_structure is read where weights are floats; how scales were found, and in which types they
// and the zeros lie, the tensors say.
constexpr std::string_view kOfWeights[] = {
    "type",     "num_bits", "symmetric",       "strategy",    "group_size", "block_structure",
    "actorder", "observer", "observer_kwargs", "scale_dtype", "zp_dtype",   "dynamic"};

constexpr const char* kLinear = "Linear";  // the class of layers that a group may name

void require_one_of(const io::JsonNode& node, std::initializer_list<const char*> allowed) {
  const std::string found = node.as_string();
  if (std::ranges::find(allowed, found) == allowed.end())
    node.reject(fmt::format("one of {}, which are read", fmt::join(allowed, ", ")));
}

void require_read_format(const io::JsonNode& node) {
  if (const auto format = node.find("format"))
    require_one_of(*format, {"pack-quantized", "int-quantized", "float-quantized",
                             "naive-quantized", "mixed-precision", "dense"});
}

// Compressed zeros and rotations of the input, which are computed as the model runs.
void require_plain_weights(const io::JsonNode& config) {
  const auto sparsity = config.find("sparsity_config");
  if (sparsity && !sparsity->value().empty() && sparsity->string_or("format", "") != "dense")
    sparsity->reject("empty: sparse weights are not read");
  const auto transform = config.find("transform_config");
  if (!transform || transform->value().empty()) return;
  const auto groups = transform->find("config_groups");
  if (!groups || !groups->value().empty() || transform->value().size() > 1)
    transform->reject("empty: transforms of a layer's input are not read");
}

CompressedWeights weights_of(const io::JsonNode& node) {
  CompressedWeights weights;
  const io::JsonNode type = node.at("type");
  require_one_of(type, {"int", "float"});
  weights.is_float = type.as_string() == "float";
  weights.bits = static_cast<int>(node.at("num_bits").as_integer(1, 8));
  if (weights.is_float && weights.bits != 8) node.at("num_bits").reject("8 for floats");
  weights.symmetric = node.bool_or("symmetric", true);
  const std::string strategy = node.string_or("strategy", "tensor");
  if (strategy == "group") {
    weights.group_size = node.at("group_size").as_integer(1, int64_t{1} << 30);
  } else if (!weights.is_float && strategy != "channel" && strategy != "tensor") {
    node.at("strategy").reject("group, channel or tensor");
  }
  if (const auto order = node.find("actorder"))
    weights.ordered = order->value().is_boolean() ? !order->as_bool() : order->value() != "group";
  return weights;
}

void warn_of_other_settings(const io::JsonNode& weights) {
  if (weights.bool_or("dynamic", false))
    log::warning_once(
        "{}.dynamic is true, as if the weights were quantized as the model runs; the stored codes "
        "and scales are used",
        weights.place());
  io::warn_of_other_keys(weights, {kOfWeights});
}

}  // namespace

CompressedGroups::CompressedGroups(const io::JsonNode& config) {
  require_read_format(config);
  require_plain_weights(config);
  check_config_keys(config, kRead, kHarmless);
  const io::JsonNode groups = config.at("config_groups");
  if (!groups.value().is_object()) groups.reject("an object");
  for (const auto& [name, value] : groups.value().items()) add_group(groups.at(name));
  if (groups_.empty()) groups.reject("groups of which one has weights");
}

void CompressedGroups::add_group(const io::JsonNode& node) {
  require_read_format(node);
  const auto weights = node.find("weights");
  if (!weights) return;
  io::warn_of_other_keys(node, {kOfGroup});
  warn_of_other_settings(*weights);
  if (const auto activations = node.find("input_activations"))
    warn_of_quantized_activations(*activations);
  Group group;
  group.weights = weights_of(*weights);
  for (const io::JsonNode& target : node.at("targets").elements()) {
    const std::string name = target.as_string();
    if (name.starts_with("re:"))
      targets_.add_pattern(name.substr(3), target);
    else
      targets_.add_name(name);
    group_of_target_.push_back(groups_.size());
    group.has_linear = group.has_linear || name == kLinear;
  }
  groups_.push_back(group);
}

bool CompressedGroups::any_float() const {
  return std::ranges::any_of(groups_, [](const Group& group) { return group.weights.is_float; });
}

std::optional<CompressedWeights> CompressedGroups::of(const std::string& module) const {
  const std::vector<size_t> targets = targets_.matching(module);
  if (!targets.empty()) return groups_[group_of_target_[targets.front()]].weights;
  for (const Group& group : groups_)
    if (group.has_linear) return group.weights;
  if (groups_.size() == 1) return groups_.front().weights;
  return std::nullopt;
}

}  // namespace qlora::quant
