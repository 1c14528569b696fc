#include "lora/adapter_fit.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/compare_rows.h"
#include "base/error.h"
#include "base/warn_once.h"
#include "io/safetensors.h"
#include "lora/adapter_file.h"
#include "lora/adapter_names.h"
#include "lora/module_path.h"
#include "lora/separate_experts.h"
#include "lora/targets.h"
#include "lora/whole_modules.h"
#include "quant/tensor_file.h"

namespace qlora::lora {
namespace {
namespace fs = std::filesystem;

bool chooses_any(const LoraOptions& options, const std::vector<std::string>& modules) {
  return std::ranges::any_of(modules,
                             [&](const std::string& module) { return is_target(options, module); });
}

std::string config_key(const std::string& directory, const char* key) {
  return (fs::path(directory) / "adapter_config.json").string() + "." + key;
}

// One list of targets of adapter_config.json, by what the base has.
struct SortedTargets {
  std::vector<std::string> matched, others;
};

SortedTargets sort_targets(std::vector<std::string> LoraOptions::*list, const LoraOptions& options,
                           const BaseView& base) {
  SortedTargets sorted;
  for (const std::string& target : options.*list) {
    LoraOptions alone;
    alone.targets.clear();
    (alone.*list) = {target};
    (chooses_any(alone, base.linear) ? sorted.matched : sorted.others).push_back(target);
  }
  return sorted;
}

std::string file_name(const std::string& module) {
  return "base_model.model." + module + ".weight";
}

// Whether `stored` is the base's weight, as it lies there or rounded to 16 bits on the way, as a
// model that was loaded so saves it.
bool is_base_weight(const io::TensorView& stored, const at::Tensor& base) {
  if (base.sizes() != stored.shape) return false;
  return std::ranges::any_of(std::array{at::kFloat, at::kBFloat16, at::kHalf},
                             [&](at::ScalarType through) {
                               return all_rows(base.size(0), [&](int64_t first, int64_t count) {
                                 const at::Tensor own = base.narrow(0, first, count).to(through);
                                 const at::Tensor rows = quant::rows_of(stored, first, count);
                                 return are_equal(rows, own.to(rows.scalar_type()));
                               });
                             });
}

// Whether two tensors of a file have one shape and the same numbers.
bool hold_equal(const io::TensorView& a, const io::TensorView& b) {
  return a.shape == b.shape && !a.shape.empty() &&
         all_rows(a.shape.front(), [&](int64_t first, int64_t count) {
           return are_equal(quant::rows_of(a, first, count), quant::rows_of(b, first, count));
         });
}

bool has_component(const std::string& path, const std::string& name) {
  return ("." + path + ".").find("." + name + ".") != std::string::npos;
}

// Leaves out the names of modules_to_save that the base has nothing of, with their tensors.
void drop_unmatched_modules(const std::string& directory, const io::TensorFile& file,
                            const BaseView& base, FittedAdapter& fitted) {
  const std::string key = config_key(directory, "modules_to_save");
  const auto any_of_base = [&](const auto& matches) {
    return std::ranges::any_of(base.linear, matches) || std::ranges::any_of(base.others, matches);
  };
  std::vector<std::string> kept, others;
  for (const std::string& name : fitted.options.modules_to_save) {
    const bool has_weights =
        any_of_base([&](const std::string& module) { return module.ends_with(name); });
    if (!has_weights &&
        any_of_base([&](const std::string& module) { return has_component(module, name); }))
      fail<FormatError>(
          "{}: {} is no module with weights of its own in {}, but one that holds others: they are "
          "not trained whole under its name in this version",
          key, name, base.place);
    (has_weights ? kept : others).push_back(name);
  }
  if (others.empty()) return;
  fitted.options.modules_to_save = kept;
  int64_t tensors = 0;
  for (const io::TensorView& tensor : file.tensors) {
    const std::string name = peft_tensor_name(tensor.name);
    if (std::ranges::none_of(others,
                             [&](const std::string& other) { return has_component(name, other); }))
      continue;
    tensors += fitted.passed_over.insert(name).second;
  }
  log::warning_once(
      "{}: {} has no module {}: passed over with {} of the file's tensors, as PEFT does", key,
      base.place, fmt::join(others, ", "), tensors);
}

// What PEFT writes of LoRA on an embedding.
void require_no_embedding_factors(const std::string& path, const io::TensorFile& file) {
  for (const io::TensorView& tensor : file.tensors)
    if (tensor.name.find(".lora_embedding_") != std::string::npos)
      fail<FormatError>(
          "{}: tensor {} is of a LoRA adapter on an embedding, which this version does not have; "
          "merge the adapter with PEFT",
          path, tensor.name);
}

void require_same_vocabulary(const io::TensorView& view, const std::string& path,
                             const BaseView& base) {
  if (view.shape.size() != 2 || view.shape[0] == base.vocab_size) return;
  fail<FormatError>(
      "{}: the adapter was made for a vocabulary of {} tokens ({}), the base {} has {}: resize the "
      "base's embeddings first (transformers: resize_token_embeddings, then save_pretrained), or "
      "give the base that was resized",
      path, view.shape[0], view.name, base.place, base.vocab_size);
}

// Null if the file has none of this name.
const io::TensorView* find_tensor(const io::TensorFile& file, const std::string& name) {
  const auto view = std::ranges::find_if(file.tensors, [&](const io::TensorView& tensor) {
    return peft_tensor_name(tensor.name) == name;
  });
  return view == file.tensors.end() ? nullptr : &*view;
}

// Whether the tensor is the embedding or head of the base, as far as that can be said.
bool is_of_base(const io::TensorView& view, const std::string& module, const BaseView& base) {
  const at::Tensor own = base.weight(module);
  return !own.defined() || is_base_weight(view, own);
}

// What PEFT writes of an embedding in a wrapper where it saves embeddings by itself (after the
// vocabulary was resized, or with save_embedding_layers): the trained matrix a second time, the one
// that it replaced, and the one below trained tokens.
void pass_over_wrapped(const std::string& path, const io::TensorFile& file, const BaseView& base,
                       FittedAdapter& fitted) {
  for (const std::string& module : {base.names.embedding, base.names.head}) {
    const auto named = [&](const char* inner) { return file_name(module + inner); };
    const io::TensorView* trained = find_tensor(file, file_name(module));
    const io::TensorView* again = find_tensor(file, named(".modules_to_save"));
    if (trained && again && hold_equal(*trained, *again))
      fitted.passed_over.insert(named(".modules_to_save"));
    if (find_tensor(file, named(".original_module")))
      fitted.passed_over.insert(named(".original_module"));
    const io::TensorView* below = find_tensor(file, named(".token_adapter.base_layer"));
    if (below == nullptr) continue;
    require_same_vocabulary(*below, path, base);
    if (!is_of_base(*below, module, base))
      fail<FormatError>(
          "{}: tensor {} must be the embedding of {}, and is another, over which the adapter's "
          "tokens were trained; give the base that the adapter was trained on",
          path, below->name, base.place);
    fitted.passed_over.insert(named(".token_adapter.base_layer"));
  }
}

// Embedding and head that are one matrix of the base, of which the adapter has no copies: PEFT
// loads what the file holds of either into it, the head's last.
void pass_over_overwritten(const std::string& path, const io::TensorFile& file,
                           const BaseView& base, FittedAdapter& fitted) {
  const io::TensorView* embedding = find_tensor(file, file_name(base.names.embedding));
  const io::TensorView* head = find_tensor(file, file_name(base.names.head));
  if (!embedding || !head || hold_equal(*embedding, *head)) return;
  log::warning_once(
      "{} holds two matrices for {} and {}, which are one in {}: that of {} is used for both, as "
      "PEFT does",
      path, base.names.embedding, base.names.head, base.place, base.names.head);
  fitted.passed_over.insert(file_name(base.names.embedding));
}

void fit_embeddings(const std::string& path, const io::TensorFile& file, const BaseView& base,
                    FittedAdapter& fitted) {
  LoraOptions& options = fitted.options;
  const bool one_matrix = base.tied && !is_trained_whole(options, base.names.embedding) &&
                          !is_trained_whole(options, base.names.head);
  if (one_matrix) pass_over_overwritten(path, file, base, fitted);
  std::vector<std::string> differing;
  for (const std::string& module : {base.names.embedding, base.names.head}) {
    const std::string name = file_name(module);
    const io::TensorView* view = find_tensor(file, name);
    if (view == nullptr) continue;
    require_same_vocabulary(*view, path, base);
    if (is_trained_whole(options, module) || fitted.passed_over.contains(name)) continue;
    if (is_of_base(*view, module, base))
      fitted.passed_over.insert(name);
    else
      differing.push_back(module);
  }
  if (differing.empty()) return;
  log::warning_once(
      "{} holds {} of its own, which modules_to_save does not name: used in place of the base's{}, "
      "as PEFT does",
      path, fmt::join(differing, " and "),
      one_matrix && differing.size() == 1 ? " embedding and head, which are one matrix" : "");
  if (one_matrix) differing = {base.names.embedding, base.names.head};
  for (const std::string& module : differing) options.modules_to_save.push_back(last_name(module));
  options.ensure_weight_tying |= one_matrix;
}

std::string init_of(const std::string& directory) {
  return read_adapter_base(directory) ? "default" : read_adapter_init(directory);
}

void require_repeatable_init(const std::string& directory) {
  const std::string init = init_of(directory);
  const std::string key = config_key(directory, "init_lora_weights");
  for (const char* lost : {"corda", "lora_ga", "loftq"})
    if (init == lost)
      fail<FormatError>(
          "{} is '{}': the initialisation changed the base's weights by data or quantization that "
          "the adapter does not hold, so that it is right on that changed base alone. If the base "
          "given here is the changed one, set the key to true; else convert the adapter with PEFT "
          "(save_pretrained with path_initial_model_for_weight_conversion)",
          key, init);
  for (const char* known : {"default", "gaussian", "orthogonal", "eva", "mica", "olora", "pissa"})
    if (init == known) return;
  if (!init.starts_with("pissa_niter_"))
    fail<FormatError>("{} is '{}', which this version does not know", key, init);
  log::warning_once(
      "{} is '{}': PEFT draws the product that the adapter began with at random and takes another "
      "one off the base each time; taken off here is the exact one, to which many iterations come "
      "near. Answers may differ from those in training; right is an adapter that PEFT converted "
      "(save_pretrained with path_initial_model_for_weight_conversion)",
      key, init);
}

}  // namespace

void drop_unmatched_targets(const std::string& directory, const BaseView& base,
                            LoraOptions& options) {
  const SortedTargets modules = sort_targets(&LoraOptions::targets, options, base);
  const SortedTargets parameters = sort_targets(&LoraOptions::target_parameters, options, base);
  if (modules.matched.empty() && parameters.matched.empty()) {
    const bool of_modules = !modules.others.empty();
    std::set<std::string> names;
    for (const std::string& module : base.linear) names.insert(last_name(module));
    fail<FormatError>(
        "{} ({}) names no module of {}, which has {}: the adapter was made for a model of another "
        "architecture",
        config_key(directory, of_modules ? "target_modules" : "target_parameters"),
        fmt::join(of_modules ? modules.others : parameters.others, ", "), base.place,
        fmt::join(names, ", "));
  }
  const auto keep = [&](const SortedTargets& sorted, const char* key, const char* what,
                        std::vector<std::string>& list) {
    list = sorted.matched;
    if (!sorted.others.empty())
      log::warning_once("{}: {} has no {} {}; the tensors decide what is adapted",
                        config_key(directory, key), base.place, what,
                        fmt::join(sorted.others, ", "));
  };
  keep(modules, "target_modules", "linear module", options.targets);
  keep(parameters, "target_parameters", "expert or router", options.target_parameters);
}

FittedAdapter fit_adapter(const std::string& directory, const BaseView& base) {
  FittedAdapter fitted{read_adapter_options(directory), {}};
  require_repeatable_init(directory);
  if (!base.has_conv1d && read_fan_in_fan_out(directory))
    log::warning_once(
        "{} is set, but the layers of the base are not transposed: taken as false, as PEFT does",
        config_key(directory, "fan_in_fan_out"));
  const std::string path = adapter_tensor_file(directory);
  const io::TensorFile file = io::read_safetensors(path);
  retarget_separate_experts(path, file, fitted.options);
  require_no_embedding_factors(path, file);
  drop_unmatched_targets(directory, base, fitted.options);
  drop_unmatched_modules(directory, file, base, fitted);
  fit_embeddings(path, file, base, fitted);
  pass_over_wrapped(path, file, base, fitted);
  return fitted;
}

int64_t reading_bytes(const std::string& directory, const LoraOptions& fitted,
                      const EmbeddingNames& names, int64_t embedding_bytes) {
  const LoraOptions given = read_adapter_options(directory);
  int64_t copied = 0, compared = 0;
  for (const io::TensorView& view : io::read_safetensors(adapter_tensor_file(directory)).tensors) {
    const std::string name = peft_tensor_name(view.name);
    bool used = true;
    for (const std::string& module : {names.embedding, names.head}) {
      const bool itself = name == file_name(module);
      const bool below = name == file_name(module + ".token_adapter.base_layer");
      used &= !below && name != file_name(module + ".modules_to_save") &&
              name != file_name(module + ".original_module") &&
              (!itself || is_trained_whole(fitted, module));
      if (below || (itself && !is_trained_whole(given, module))) compared = 2 * embedding_bytes;
    }
    if (used) copied += static_cast<int64_t>(view.bytes.size());
  }
  return std::max(copied, compared);
}

std::string initial_product_of(const std::string& directory) {
  const std::string init = init_of(directory);
  if (init.starts_with("pissa")) return "pissa";
  return init == "olora" ? init : "";
}

}  // namespace qlora::lora
