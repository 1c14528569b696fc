#include "lora/adapter_file.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/compare_rows.h"
#include "base/error.h"
#include "base/hub_id.h"
#include "base/warn_once.h"
#include "io/atomic_write.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/safetensors.h"
#include "lora/adapter_names.h"
#include "lora/adapter_patterns.h"
#include "lora/expert_adapters.h"
#include "lora/module_path.h"
#include "quant/tensor_file.h"

namespace qlora::lora {
namespace {
namespace fs = std::filesystem;

constexpr const char* kConfigFile = "adapter_config.json";

std::string in(const std::string& directory, const char* name) {
  return (fs::path(directory) / name).string();
}

nlohmann::json list_or_none(const std::vector<std::string>& values) {
  return values.empty() ? nlohmann::json(nullptr) : nlohmann::json(values);
}

// A list where only the input embedding has trained tokens, as PEFT users write it. In a map PEFT
// looks for modules of the model's own names.
nlohmann::json tokens_json(std::map<std::string, std::vector<int64_t>> tokens,
                           const std::string& embedding) {
  if (tokens.empty()) return nullptr;
  if (tokens.size() == 1 && tokens.begin()->first == kAnyEmbedding) return tokens.begin()->second;
  if (auto found = tokens.extract(kAnyEmbedding)) {
    found.key() = last_name(embedding);
    tokens.insert(std::move(found));
  }
  return tokens;
}

// adapter_config.json with its keys sorted, as PEFT writes it, but for those of patterns. The
// targets of `options` are those of the adapter.
std::string config_text(const AdapterSet& adapters, const LoraOptions& options,
                        const AdapterBase& base) {
  const nlohmann::json none = nullptr;
  const HubId hub = hub_id_of(base.name).value_or(HubId{base.name, ""});
  // Ordered: of rank_pattern and alpha_pattern the first key that matches decides.
  nlohmann::ordered_json config = {
      {"alpha_pattern", patterns_json(options.alpha_pattern)},
      {"auto_mapping", none},
      {"base_model_name_or_path", hub.id},
      {"bias", options.bias},
      {"ensure_weight_tying", options.ensure_weight_tying},
      {"exclude_modules", none},
      {"fan_in_fan_out", adapters.fan_in_fan_out()},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"layers_pattern", none},
      {"layers_to_transform", none},
      {"lora_alpha", options.alpha},
      {"lora_dropout", options.dropout},
      {"modules_to_save", list_or_none(options.modules_to_save)},
      {"peft_type", "LORA"},
      {"r", options.rank},
      {"rank_pattern", patterns_json(options.rank_pattern)},
      {"revision", hub.revision.empty() ? none : nlohmann::json(hub.revision)},
      {"target_modules", options.targets},
      {"target_parameters", options.target_parameters},
      {"task_type", adapters.has_encoder() ? "SEQ_2_SEQ_LM" : "CAUSAL_LM"},
      {"trainable_token_indices",
       tokens_json(options.trainable_token_indices, adapters.names().embedding)},
      {"use_dora", options.use_dora},
      {"use_rslora", options.use_rslora}};
  // Versions of PEFT before 0.17 do not know it.
  if (options.target_parameters.empty()) config.erase("target_parameters");
  return io::json_text_in_utf8(config, 2) + "\n";  // the base may be named by a path, of any bytes
}

// What this version does with each field of PEFT's LoraConfig (0.21).
enum class Use {
  kRead,        // below, in read_adapter_options
  kIrrelevant,  // changes nothing in how the stored tensors act
  kOnlyUnset,   // would change it: refused unless null, false or empty
};
constexpr std::pair<const char*, Use> kFields[] = {
    {"peft_type", Use::kRead},
    {"r", Use::kRead},
    {"lora_alpha", Use::kRead},
    {"lora_dropout", Use::kRead},
    {"target_modules", Use::kRead},
    {"exclude_modules", Use::kRead},
    {"layers_to_transform", Use::kRead},
    {"layers_pattern", Use::kRead},
    {"rank_pattern", Use::kRead},
    {"alpha_pattern", Use::kRead},
    {"use_rslora", Use::kRead},
    {"use_dora", Use::kRead},
    {"bias", Use::kRead},
    {"modules_to_save", Use::kRead},
    {"trainable_token_indices", Use::kRead},
    {"ensure_weight_tying", Use::kRead},
    {"task_type", Use::kIrrelevant},
    {"auto_mapping", Use::kIrrelevant},
    {"peft_version", Use::kIrrelevant},
    {"base_model_name_or_path", Use::kIrrelevant},
    {"revision", Use::kIrrelevant},
    {"inference_mode", Use::kIrrelevant},
    {"init_lora_weights", Use::kIrrelevant},
    {"loftq_config", Use::kIrrelevant},
    {"eva_config", Use::kIrrelevant},
    {"corda_config", Use::kIrrelevant},
    {"lora_ga_config", Use::kIrrelevant},
    {"megatron_core", Use::kIrrelevant},
    {"qalora_group_size", Use::kIrrelevant},
    {"runtime_config", Use::kIrrelevant},
    {"fan_in_fan_out", Use::kRead},
    {"lora_bias", Use::kOnlyUnset},
    {"target_parameters", Use::kRead},
    {"layer_replication", Use::kOnlyUnset},
    {"alora_invocation_tokens", Use::kOnlyUnset},
    {"use_qalora", Use::kOnlyUnset},
    {"use_bdlora", Use::kOnlyUnset},
    {"megatron_config", Use::kOnlyUnset},
    {"velora_config", Use::kOnlyUnset},
    {"monteclora_config", Use::kOnlyUnset},
    {"arrow_config", Use::kOnlyUnset},
    {"kasa_config", Use::kOnlyUnset},
};

bool is_unset(const nlohmann::json& value) {
  return value.is_null() || value == false ||
         ((value.is_structured() || value.is_string()) && value.empty());
}

// Refuses fields that would change what the adapter computes.
void check_fields(const io::JsonNode& config) {
  for (const auto& [key, value] : config.value().items()) {
    const auto* field = std::ranges::find_if(
        kFields, [&key = key](const auto& known) { return key == known.first; });
    if (field == std::end(kFields)) {
      if (!is_unset(value))
        log::warning_once("{}: unknown key '{}' is ignored", config.place(), key);
    } else if (field->second == Use::kOnlyUnset && !is_unset(value)) {
      config.at(key).reject("unset: this version does not have it");
    }
  }
}

constexpr int64_t kMostLayers = 1 << 20, kMostTokens = 1 << 30;

// A text, or a list of texts.
std::vector<std::string> strings_of(const io::JsonNode& node) {
  if (node.value().is_string()) return {node.as_string()};
  std::vector<std::string> all;
  for (const io::JsonNode& item : node.elements()) all.push_back(item.as_string());
  return all;
}

std::vector<int64_t> token_ids(const io::JsonNode& list) {
  std::vector<int64_t> ids;
  for (const io::JsonNode& id : list.elements()) ids.push_back(id.as_integer(0, kMostTokens));
  return ids;
}

at::Tensor tensor_named(const quant::NamedTensors& tensors, const std::string& name) {
  const auto found =
      std::ranges::find(tensors, name, [](const auto& entry) { return entry.first; });
  check(found != tensors.end(), "there is no tensor {}", name);
  return found->second;
}

// A view of the tensor in the form that files have.
at::Tensor in_file(const AdapterTensor& tensor) {
  return tensor.transposed ? tensor.value.t() : tensor.value;
}

std::vector<std::pair<std::string, io::JsonNode>> entries_of(const io::JsonNode& object) {
  if (object.value().is_array() && object.value().empty()) return {};
  if (!object.value().is_object()) object.reject("an object");
  std::vector<std::pair<std::string, io::JsonNode>> all;
  for (const auto& [key, value] : object.value().items()) all.emplace_back(key, object.at(key));
  return all;
}

// Names of the list of layers ("model.layers" or "layers"), of which one is enough: PEFT takes the
// first that a module has.
void check_layers_pattern(const io::JsonNode& patterns) {
  if (is_unset(patterns.value())) return;
  const std::vector<std::string> names = strings_of(patterns);
  if (std::ranges::all_of(names, &std::string::empty)) return;
  const bool is_known = std::ranges::any_of(names, [](const std::string& name) {
    const std::string last = last_name(name);
    return last == "layers" || last == "h" || last == "blocks";
  });
  if (!is_known) patterns.reject("layers, h or blocks, the name of the list of layers");
}

// What is trained beside the adapters.
void read_trained_parts(const io::JsonNode& config, LoraOptions& options) {
  if (const auto modules = config.find("modules_to_save"))
    options.modules_to_save = strings_of(*modules);
  options.ensure_weight_tying = config.bool_or("ensure_weight_tying", false);
  const auto tokens = config.find("trainable_token_indices");
  if (!tokens || tokens->value().empty()) return;
  if (tokens->value().is_array())
    options.trainable_token_indices[kAnyEmbedding] = token_ids(*tokens);
  else
    for (const auto& [module, ids] : entries_of(*tokens))
      options.trainable_token_indices[module] = token_ids(ids);
}

// The second names of shared tensors must hold what the first ones do; they are then done with. A
// file that has only one of the two means both.
void take_out_copies(const std::string& path, const AdapterSet& adapters,
                     std::map<std::string, at::Tensor>& stored) {
  for (const auto& [name, original] : adapters.copies()) {
    const auto copy = stored.find(name);
    if (copy == stored.end()) continue;
    const auto [first, is_alone] = stored.emplace(original, copy->second);
    if (!is_alone && !are_equal(copy->second, first->second))
      fail<FormatError>(
          "{}: ensure_weight_tying: tensor {} must equal {}; the adapter was not trained with tied "
          "embeddings",
          path, name, original);
    stored.erase(copy);
  }
}

// As near as rounding to 16 bits allows.
bool is_near(const at::Tensor& stored, const quant::FrozenWeight& weight) {
  if (stored.sizes() != at::IntArrayRef({weight.out_features(), weight.in_features()}))
    return false;
  const auto options = at::TensorOptions().dtype(at::kFloat).device(weight.device());
  return all_rows(weight.out_features(), [&](int64_t first, int64_t count) {
    at::Tensor own = at::empty({count, weight.in_features()}, options);
    weight.dequantize_rows(0, first, first + count, own);
    return at::allclose(stored.narrow(0, first, count).to(options), own, 0x1p-7, 1e-6);
  });
}

bool is_finite(const at::Tensor& stored) {
  return all_rows(stored.size(0), [&](int64_t first, int64_t count) {
    return at::isfinite(stored.narrow(0, first, count)).all().item<bool>();
  });
}

// PEFT writes the frozen weight beside an adapter of the head. It must be this base's.
void take_out_frozen(const std::string& path, const AdapterSet& adapters,
                     std::map<std::string, at::Tensor>& stored) {
  for (const auto& [name, weight] : adapters.frozen_beside()) {
    const auto found = stored.find(name);
    if (found == stored.end()) continue;
    if (!is_near(found->second, *weight))
      fail<FormatError>("{}: tensor {} must be the weight of this base model, and is another", path,
                        name);
    stored.erase(found);
  }
}

}  // namespace

std::string adapter_tensor_file(const std::string& directory) {
  std::string path = in(directory, kAdapterTensors);
  if (!fs::exists(path) && fs::exists(in(directory, "adapter_model.bin")))
    fail<FormatError>(
        "{} must hold {}; its tensors are in adapter_model.bin, a pickle, which this program does "
        "not read. Load the adapter with PEFT and save it again: save_pretrained writes "
        "safetensors",
        directory, kAdapterTensors);
  return path;
}

void write_adapter(const std::string& directory, const AdapterSet& adapters,
                   const LoraOptions& given, const AdapterBase& base,
                   const SeparateNames* separate) {
  LoraOptions options = given;
  options.targets = adapters.target_modules();
  options.target_parameters = adapters.target_parameters();
  quant::NamedTensors tensors;
  const at::ScalarType dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  for (const AdapterTensor& tensor : adapters.tensors())
    tensors.emplace_back(tensor.name, in_file(tensor).to(dtype).contiguous());
  for (const auto& [name, original] : adapters.copies())
    tensors.emplace_back(name, tensor_named(tensors, original));
  if (separate) {
    SeparateAdapter separated = separate_experts(tensors, options, *separate);
    tensors = std::move(separated.tensors);
    options = std::move(separated.options);
  } else {
    tensors = with_experts_stacked(adapters.tensors(), tensors);
  }
  quant::write_tensors(in(directory, kAdapterTensors), tensors, {{"format", "pt"}});
  io::write_file_atomically(in(directory, kConfigFile), config_text(adapters, options, base));
  write_adapter_base(directory, base);
}

bool read_fan_in_fan_out(const std::string& directory) {
  const std::string path = in(directory, kConfigFile);
  const nlohmann::json document = io::read_json_file(path);
  return io::JsonNode(document, path).bool_or("fan_in_fan_out", false);
}

LoraOptions read_adapter_options(const std::string& directory) {
  const std::string path = in(directory, kConfigFile);
  if (!fs::exists(path)) {
    // As a run and its checkpoints have it.
    const std::string inner = in(directory, "adapter");
    fail<ConfigError>("{} must be an adapter directory with {}, there is none{}", directory,
                      kConfigFile,
                      fs::exists(in(inner, kConfigFile)) ? "; " + inner + " is one" : "");
  }
  const nlohmann::json document = io::read_json_file(path);
  const io::JsonNode config(document, path);
  check_fields(config);
  if (const auto type = config.find("peft_type"); type && type->as_string() != "LORA")
    type->reject("LORA");
  LoraOptions options;
  options.rank = config.at("r").as_integer(1, 1 << 16);
  options.alpha = config.at("lora_alpha").as_number();
  const auto dropout = config.find("lora_dropout");
  options.dropout = dropout ? dropout->as_number() : 0.0;
  options.use_rslora = config.bool_or("use_rslora", false);
  options.use_dora = config.bool_or("use_dora", false);
  if (const auto bias = config.find("bias")) options.bias = bias->as_string();
  options.targets.clear();
  if (const auto modules = config.find("target_modules")) options.targets = strings_of(*modules);
  if (const auto parameters = config.find("target_parameters"))
    options.target_parameters = strings_of(*parameters);
  if (options.targets.empty() && options.target_parameters.empty())
    config.at("target_modules").reject("the name of a module, or a list of them");
  if (const auto excluded = config.find("exclude_modules"))
    options.exclude_modules = strings_of(*excluded);
  read_trained_parts(config, options);
  if (const auto layers = config.find("layers_to_transform")) {
    if (layers->value().is_array()) {
      for (const io::JsonNode& layer : layers->elements())
        options.layers_to_transform.push_back(layer.as_integer(0, kMostLayers));
    } else {
      options.layers_to_transform.push_back(layers->as_integer(0, kMostLayers));
    }
  }
  if (const auto patterns = config.find("layers_pattern")) check_layers_pattern(*patterns);
  read_patterns(path, config, options);
  options.validate();
  return options;
}

void read_adapter_tensors(const std::string& directory, AdapterSet& adapters,
                          const std::set<std::string>& passed_over) {
  const std::string path = adapter_tensor_file(directory);
  std::map<std::string, at::Tensor> stored;
  for (const io::TensorView& view : io::read_safetensors(path).tensors) {
    const std::string name = peft_tensor_name(view.name);
    if (passed_over.contains(name)) continue;
    if (!stored.emplace(name, quant::copy_from_file(view)).second)
      fail<FormatError>("{}: two tensors are {}, one of them as {}", path, name, view.name);
  }
  at::NoGradGuard no_grad;
  take_out_copies(path, adapters, stored);
  take_out_frozen(path, adapters, stored);
  take_experts_apart(path, adapters.tensors(), stored);
  for (const AdapterTensor& wanted : adapters.tensors()) {
    const auto found = stored.find(wanted.name);
    if (found == stored.end()) {
      fail<FormatError>(
          "{}: there must be a tensor {}; the adapter was made for other target modules (it has "
          "{})",
          path, wanted.name, stored.empty() ? "no tensors" : stored.begin()->first);
    }
    const at::Tensor stored_form = in_file(wanted);
    if (found->second.sizes() != stored_form.sizes() || !found->second.is_floating_point()) {
      fail<FormatError>("{}: tensor {} must have shape [{}], found [{}] of {}", path, wanted.name,
                        fmt::join(stored_form.sizes(), ", "),
                        fmt::join(found->second.sizes(), ", "),
                        c10::toString(found->second.scalar_type()));
    }
    if (!is_finite(found->second)) {
      fail<FormatError>("{}: tensor {} holds a value that is NaN or infinite", path, wanted.name);
    }
  }
  if (stored.size() != adapters.tensors().size()) {
    for (const AdapterTensor& wanted : adapters.tensors()) stored.erase(wanted.name);
    fail<FormatError>("{}: tensor {} belongs to no target module of this base model", path,
                      stored.begin()->first);
  }
  for (const AdapterTensor& wanted : adapters.tensors()) {
    in_file(wanted).copy_(stored.at(wanted.name));
  }
  adapters.round_to_dtype();
  adapters.publish();
}

}  // namespace qlora::lora
