#include "recipes/run/attached_adapters.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/arena_allocator.h"
#include "base/log.h"
#include "lora/expert_names.h"
#include "recipes/models/adapter_on_base.h"

namespace qlora::recipes {
namespace {

void warn_about_frozen_biases(const BaseModel& base) {
  for (const lora::LinearGroup* group : std::as_const(*base.model).groups())
    for (const lora::LoraLinear& layer : group->layers())
      if (layer.bias.defined() && lora::is_parameter(layer.name)) {
        log::warning(
            "lora.bias all: the biases of experts and routers ({}, ...) stay frozen in this "
            "version; PEFT trains them too",
            layer.name);
        return;
      }
}

// PEFT wraps the embedding by its name. Encoder and decoder of transformers hold it under names of
// their own, which PEFT ties to a whole one never, and to single tokens where embeddings are tied.
void warn_about_embedding_of_encoder(const BaseModel& base, const lora::AdapterSet& adapters) {
  const model::Architecture& a = base.model->architecture();
  const lora::TrainedEmbeddings& trained = adapters.embeddings();
  const bool tokens = !trained.embedding_ids.empty() && !a.tied_embeddings;
  if (!a.has_encoder() || !(trained.whole_embedding || tokens)) return;
  log::warning(
      "lora.{}: PEFT trains and loads {} apart from what encoder and decoder read, which stays the "
      "base's: there the adapter acts otherwise; merge it (qlora export --format merged)",
      tokens ? "trainable_token_indices" : "modules_to_save", a.embedding.names.hugging_face);
}

// What is trained beside the adapters, and what follows from it.
void report_trained_parts(const Recipe& recipe, const BaseModel& base,
                          const lora::AdapterSet& adapters) {
  int64_t tensors = 0, numbers = 0;
  for (const lora::AdapterTensor& tensor : adapters.tensors()) {
    if (tensor.name.find(".lora_") != std::string::npos || tensor.name.ends_with(".bias")) continue;
    ++tensors;
    numbers += tensor.value.numel();
  }
  if (tensors > 0)
    log::info("trained beside the adapters: {} tensors, {:.2f} M parameters", tensors,
              static_cast<double>(numbers) / 1e6);
  const bool adapter_on_head = base.model->head.layers().front().adapter != nullptr;
  const std::string tying =
      lora::tying_sentence(recipe.lora, adapters.embeddings(),
                           base.model->architecture().tied_embeddings, adapter_on_head);
  if (!tying.empty()) log::write_info(tying);
  const std::string refusal =
      lora::refusal_sentence(recipe.lora, base.model->architecture().embedding_names());
  if (!refusal.empty()) log::write_warning(refusal);
  warn_about_embedding_of_encoder(base, adapters);
}

void read_given_adapter(const std::string& directory, const BaseModel& base,
                        lora::AdapterSet& adapters) {
  if (directory.empty()) return;
  require_same_base(directory, base);
  const std::set<std::string> passed_over = fit_adapter(directory, base.path).passed_over;
  release_free_arena_pages();  // of the embeddings that were compared
  lora::read_adapter_tensors(directory, adapters, passed_over);
  release_free_arena_pages();  // of the tensors as the file has them
}

}  // namespace

lora::AdapterSet attach_adapters(const Recipe& recipe, const BaseModel& base) {
  lora::AdapterSet adapters(recipe.lora, base.model->parts(), base.model->compute_dtype(),
                            recipe.train.seed, base.factors);
  try {
    read_given_adapter(recipe.lora.from_adapter, base, adapters);
  } catch (...) {
    lora::empty_slots(base.model->parts());
    throw;
  }
  for (const lora::TargetMatch& match : adapters.matches())
    log::info("lora.targets {}: {} modules, {:.2f} M parameters", match.pattern, match.modules(),
              static_cast<double>(match.parameters) / 1e6);
  if (recipe.lora.bias == "all") warn_about_frozen_biases(base);
  report_trained_parts(recipe, base, adapters);
  return adapters;
}

void look_for_trained_tokens(const lora::AdapterSet& adapters, const data::PreparedData& data) {
  const lora::TrainedEmbeddings& trained = adapters.embeddings();
  std::set<int64_t> unseen(trained.embedding_ids.begin(), trained.embedding_ids.end());
  unseen.insert(trained.head_ids.begin(), trained.head_ids.end());
  if (unseen.empty()) return;
  data::for_each_example(data.train, [&](const data::ExampleView& example) {
    for (const auto tokens : {example.tokens, example.encoded})
      for (const int32_t token : tokens) unseen.erase(token);
  });
  if (const std::string sentence = unseen_tokens_sentence(trained, unseen); !sentence.empty())
    log::write_warning(sentence);
}

std::string unseen_tokens_sentence(const lora::TrainedEmbeddings& trained,
                                   const std::set<int64_t>& unseen) {
  if (unseen.empty()) return "";
  std::set<int64_t> all(trained.embedding_ids.begin(), trained.embedding_ids.end());
  all.insert(trained.head_ids.begin(), trained.head_ids.end());
  const auto any_of = [&](const std::vector<int64_t>& ids) {
    return std::ranges::any_of(ids, [&](int64_t id) { return unseen.contains(id); });
  };
  const bool head = any_of(trained.head_ids), embedding = any_of(trained.embedding_ids);
  const char* consequence =
      !head ? "they stay as they are"
      : trained.shared || !embedding
          ? "lm_head learns only not to say them"
          : "embed_tokens stays as it is, lm_head learns only not to say them";
  return fmt::format(
      "lora.trainable_token_indices: no training row holds {} of the {} tokens ({}): {}",
      unseen.size(), all.size(), fmt::join(unseen, ", "), consequence);
}

}  // namespace qlora::recipes
