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

bool matches_any(const std::string& target, const std::vector<std::string>& modules) {
  LoraOptions alone;
  alone.targets = {target};
  return std::ranges::any_of(modules,
                             [&](const std::string& module) { return is_target(alone, module); });
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
  const std::string key =
      (fs::path(directory) / "adapter_config.json").string() + ".init_lora_weights";
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
}

}  // namespace

void drop_unmatched_targets(const std::string& directory, const BaseView& base,
                            LoraOptions& options) {
  std::vector<std::string> matched, others;
  for (const std::string& target : options.targets)
    (matches_any(target, base.linear) ? matched : others).push_back(target);
  if (others.empty()) return;
  const std::string key =
      (fs::path(directory) / "adapter_config.json").string() + ".target_modules";
  if (matched.empty() && options.target_parameters.empty()) {
    std::set<std::string> names;
    for (const std::string& module : base.linear) names.insert(last_name(module));
    fail<FormatError>(
        "{} ({}) names no module of {}, which has {}: the adapter was made for a model of another "
        "architecture",
        key, fmt::join(others, ", "), base.place, fmt::join(names, ", "));
  }
  log::warning_once("{}: {} has no module {}; the tensors decide what is adapted", key, base.place,
                    fmt::join(others, ", "));
  options.targets = matched;
}

FittedAdapter fit_adapter(const std::string& directory, const BaseView& base) {
  FittedAdapter fitted{read_adapter_options(directory), {}};
  require_repeatable_init(directory);
  if (!base.has_conv1d && read_fan_in_fan_out(directory))
    log::warning_once(
        "{}.fan_in_fan_out is set, but the layers of the base are not transposed: taken as false, "
        "as PEFT does",
        (fs::path(directory) / "adapter_config.json").string());
  const std::string path = adapter_tensor_file(directory);
  const io::TensorFile file = io::read_safetensors(path);
  retarget_separate_experts(path, file, fitted.options);
  drop_unmatched_targets(directory, base, fitted.options);
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
