#include "lora/whole_modules.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "lora/module_path.h"

namespace qlora::lora {
namespace {

// A name that ends the path after a dot, or is all of it.
bool is_whole_name(const std::string& path, const std::string& name) {
  return path == name || path.ends_with("." + name);
}

std::vector<int64_t> checked_ids(const std::string& key, const std::vector<int64_t>& ids,
                                 int64_t vocab) {
  std::set<int64_t> seen;
  for (const int64_t id : ids) {
    if (id < 0 || id >= vocab)
      fail<ConfigError>("{}: {} is no token of the model, which has {}", key, id, vocab);
    if (!seen.insert(id).second) fail<ConfigError>("{}: {} is there twice", key, id);
  }
  return ids;
}

// The ids of each embedding as they are written.
void read_ids(const LoraOptions& options, int64_t vocab, const EmbeddingNames& names,
              TrainedEmbeddings& trained) {
  std::string embedding_name, head_name;  // which the options use
  for (const auto& [module, ids] : options.trainable_token_indices) {
    const std::string key = "lora.trainable_token_indices." + module;
    const bool of_head = is_whole_name(names.head, module);
    if (!of_head && !is_whole_name(names.embedding, module) && module != kAnyEmbedding)
      fail<ConfigError>("{}: only {} and {} have tokens", key, last_name(names.embedding),
                        last_name(names.head));
    std::string& name = of_head ? head_name : embedding_name;
    if (!name.empty())
      fail<ConfigError>("{}: {} is the same module; give all of its tokens under one name", key,
                        name);
    name = module;
    (of_head ? trained.head_ids : trained.embedding_ids) = checked_ids(key, ids, vocab);
  }
}

}  // namespace

bool is_trained_whole(const LoraOptions& options, const std::string& module) {
  return std::ranges::any_of(options.modules_to_save,
                             [&](const std::string& name) { return module.ends_with(name); });
}

bool trains_norm_weight(const LoraOptions& options, const std::string& module,
                        const NormWeight& norm) {
  return norm.frozen.defined() && is_trained_whole(options, module);
}

bool trains_norm_bias(const LoraOptions& options, const std::string& module,
                      const NormWeight& norm) {
  return norm.frozen_bias.defined() && (options.bias == "all" || is_trained_whole(options, module));
}

TrainedEmbeddings trained_embeddings(const LoraOptions& options, bool tied, int64_t vocab,
                                     const EmbeddingNames& names) {
  TrainedEmbeddings trained;
  trained.whole_embedding = is_trained_whole(options, names.embedding);
  trained.whole_head = is_trained_whole(options, names.head);
  read_ids(options, vocab, names, trained);
  if (tied && options.ensure_weight_tying && (trained.whole_embedding || trained.whole_head))
    trained.whole_embedding = trained.whole_head = trained.shared = true;
  if (tied && !trained.embedding_ids.empty()) {
    const bool other_tokens =
        !trained.head_ids.empty() && trained.head_ids != trained.embedding_ids;
    if (other_tokens && options.ensure_weight_tying)
      throw ConfigError(
          "lora.trainable_token_indices: embed_tokens and lm_head are one matrix and "
          "lora.ensure_weight_tying is set; give both the same tokens in the same order");
    if (!other_tokens) {
      trained.head_ids = trained.embedding_ids;
      trained.shared = true;
    }
  }
  if ((trained.whole_embedding && !trained.embedding_ids.empty()) ||
      (trained.whole_head && !trained.head_ids.empty()))
    throw ConfigError(
        "lora.trainable_token_indices: lora.modules_to_save trains all tokens of that embedding; "
        "keep one of the two");
  return trained;
}

void check_adapted_head(const LoraOptions& options, const TrainedEmbeddings& trained, bool tied,
                        const EmbeddingNames& names) {
  const std::string head = last_name(names.head);
  for (const auto& [module, ids] : options.trainable_token_indices)
    if (is_whole_name(names.head, module))
      fail<ConfigError>(
          "lora.trainable_token_indices.{}: {} is one of lora.targets, and beneath an adapter it "
          "has no tokens of its own, as in PEFT; leave one of the two out{}",
          module, head,
          tied ? " (tokens of the input embedding are trained in both, which are one matrix)" : "");
  if (options.use_dora && !trained.head_ids.empty())
    fail<ConfigError>(
        "lora.trainable_token_indices: {} is one of lora.targets and has the tokens of the input "
        "embedding, as they are one matrix: beneath an adapter with lora.use_dora they cannot be "
        "trained, as in PEFT; leave one of the three out",
        head);
  if (tied && options.ensure_weight_tying)
    fail<ConfigError>(
        "lora.ensure_weight_tying: {} is one of lora.targets, and adapters of tied embeddings "
        "cannot be tied in this version; leave one of the two out",
        head);
}

void check_whole_modules(const LoraOptions& options, const std::vector<std::string>& linear,
                         const std::vector<std::string>& others) {
  std::set<std::string> known;
  for (const auto* names : {&linear, &others})
    for (const std::string& name : *names) known.insert(last_name(name));
  for (const std::string& name : options.modules_to_save) {
    bool found = false;
    for (const std::string& module : others) found |= module.ends_with(name);
    for (const std::string& module : linear) {
      if (!module.ends_with(name)) continue;
      found = true;
      if (!is_whole_name(module, name))
        fail<ConfigError>("lora.modules_to_save: '{}' is part of the name of {}; write it in full",
                          name, module);
    }
    if (!found)
      fail<ConfigError>("lora.modules_to_save: '{}' is no module with weights; the model has {}",
                        name, fmt::join(known, ", "));
  }
}

std::string tying_sentence(const LoraOptions& options, const TrainedEmbeddings& trained, bool tied,
                           bool adapter_on_head) {
  const bool rows = !trained.embedding_ids.empty() || !trained.head_ids.empty();
  const bool touched = trained.whole_embedding || trained.whole_head || rows || adapter_on_head;
  if (!tied)
    return options.ensure_weight_tying
               ? "lora.ensure_weight_tying changes nothing: the model's embeddings are not tied"
               : "";
  if (!touched)
    return options.ensure_weight_tying
               ? "lora.ensure_weight_tying changes nothing: no embedding is trained"
               : "";
  if (trained.shared)
    return rows ? std::string(
                      "embed_tokens and lm_head are one matrix: the trained tokens are shared by "
                      "both") +
                      (adapter_on_head ? ", and lm_head's adapter is added to them. A merged "
                                         "export has two matrices"
                                       : "")
                : "embed_tokens and lm_head are one matrix and stay so: one trained copy for both "
                  "(lora.ensure_weight_tying)";
  const bool both = trained.whole_embedding && trained.whole_head;
  if (both || (!trained.embedding_ids.empty() && !trained.head_ids.empty()))
    return "embed_tokens and lm_head are one matrix in the base and part ways here: each is "
           "trained as a copy of its own. A merged export has both; lora.ensure_weight_tying keeps "
           "one";
  const bool input = trained.whole_embedding || !trained.embedding_ids.empty();
  return fmt::format(
      "embed_tokens and lm_head are one matrix in the base and part ways here: {} is trained apart "
      "from it, {} stays frozen at the old values. A merged export has both{}",
      input ? "embed_tokens" : "lm_head", input ? "lm_head" : "embed_tokens",
      adapter_on_head ? "" : "; lora.ensure_weight_tying trains one matrix for both");
}

std::string refusal_sentence(const LoraOptions& options, const EmbeddingNames& names) {
  std::vector<std::string> features;
  if (!options.modules_to_save.empty()) features.emplace_back("modules_to_save");
  if (!options.trainable_token_indices.empty()) features.emplace_back("trainable_token_indices");
  const bool embeddings = !options.trainable_token_indices.empty() ||
                          is_trained_whole(options, names.embedding) ||
                          is_trained_whole(options, names.head);
  if (options.use_dora) features.emplace_back("use_dora");
  if (features.empty()) return "";
  return fmt::format(
      "the adapter will have {}: vLLM refuses such an adapter{}; for them, merge it (qlora export "
      "--format merged)",
      fmt::join(features, " and "),
      embeddings ? ", and so does llama.cpp's converter one that holds embeddings" : "");
}

}  // namespace qlora::lora
