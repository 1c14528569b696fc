#include "recipes/given_adapter.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "lora/module_path.h"
#include "lora/targets.h"
#include "lora/whole_modules.h"
#include "model/architecture.h"
#include "model/expert_targets.h"
#include "model/model_header.h"
#include "recipes/fields/fields.h"
#include "recipes/options_from_files.h"

namespace qlora::recipes {
namespace {

using lora::LoraOptions;

// Keys that say one thing together, and whether recipe and adapter mean the same by them.
struct Meaning {
  std::vector<std::string> keys;
  bool is_same;
};

std::vector<std::string> modules_of(const model::Architecture& a) {
  std::vector<std::string> modules = a.linear_modules();
  modules.push_back(a.head.names.hugging_face);
  return modules;
}

std::vector<std::string> adapted(const LoraOptions& options, std::vector<std::string> modules) {
  std::erase_if(modules, [&](const std::string& module) { return !is_target(options, module); });
  return modules;
}

std::set<std::string> as_set(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

// By module, the input embedding under one name.
std::map<std::string, std::set<int64_t>> token_sets(const LoraOptions& options,
                                                    const model::Architecture& a) {
  std::map<std::string, std::set<int64_t>> sets;
  const std::string embedding = lora::last_name(a.embedding.names.hugging_face);
  for (const auto& [module, ids] : options.trainable_token_indices)
    sets[module == embedding ? lora::kAnyEmbedding : module].insert(ids.begin(), ids.end());
  return sets;
}

std::vector<Meaning> compare(LoraOptions ours, const LoraOptions& theirs,
                             const model::Architecture& a) {
  model::resolve_expert_targets(a, ours);
  const std::vector<std::string> modules = adapted(theirs, modules_of(a));
  const auto in_all_modules = [&](const auto& is_same) {
    return std::ranges::all_of(modules, [&](const std::string& module) {
      return is_same(ours.of_module(module), theirs.of_module(module));
    });
  };
  LoraOptions alike = ours;
  alike.modules_to_save = theirs.modules_to_save;  // which get no adapter
  return {{{"targets", "target_parameters", "exclude_modules", "layers_to_transform"},
           adapted(alike, modules_of(a)) == modules},
          {{"rank", "rank_pattern"},
           in_all_modules([](const auto& x, const auto& y) { return x.rank == y.rank; })},
          {{"alpha", "alpha_pattern"},
           in_all_modules([](const auto& x, const auto& y) { return x.alpha == y.alpha; })},
          {{"modules_to_save"}, as_set(ours.modules_to_save) == as_set(theirs.modules_to_save)},
          {{"trainable_token_indices"}, token_sets(ours, a) == token_sets(theirs, a)},
          {{"ensure_weight_tying"}, ours.ensure_weight_tying == theirs.ensure_weight_tying},
          {{"use_dora"}, ours.use_dora == theirs.use_dora},
          {{"use_rslora"}, ours.use_rslora == theirs.use_rslora},
          {{"bias"}, ours.bias == theirs.bias},
          {{"dropout"}, ours.dropout == theirs.dropout},
          {{"init"}, ours.init == "default" || ours.init == theirs.init}};
}

// An adapter's dropout is the recipe's if it gives one.
bool stands_in(const Recipe& recipe, const std::string& key) {
  if (key == "dropout") return false;
  return recipe.places.contains("lora." + key) ||
         (key == "trainable_token_indices" && recipe.places.contains("lora.trainable_tokens"));
}

const Field<Recipe>& lora_field(const std::string& key) {
  for (const Section& section : sections())
    if (section.name == "lora")
      for (const Field<Recipe>& field : section.fields)
        if (field.key == key) return field;
  fail<Error>("there is no key lora.{}", key);
}

// Calls visit(key, the recipe's value, the adapter's) for each key of those that mean other things.
template <typename Visit>
void for_each_difference(const Recipe& recipe, const LoraOptions& adapter,
                         const std::string& model_path, const Visit& visit) {
  Recipe ours = recipe, theirs = recipe;
  name_trained_tokens(ours);
  theirs.lora = adapter;
  const model::Architecture a = model::read_model_header(model_path).architecture;
  for (const Meaning& meaning : compare(ours.lora, theirs.lora, a))
    for (const std::string& key : meaning.keys) {
      if (meaning.is_same) continue;
      const Field<Recipe>& field = lora_field(key);
      const std::string value = to_yaml(field.write(ours)), other = to_yaml(field.write(theirs));
      if (value != other) visit(key, value, other);
    }
}

}  // namespace

bool has_given_adapter(const Recipe& recipe) {
  const std::filesystem::path directory = recipe.lora.from_adapter;
  return std::filesystem::exists(directory / "adapter_config.json");
}

void require_form_of_adapter(const Recipe& recipe, const LoraOptions& adapter,
                             const std::string& model_path) {
  std::vector<std::string> differences;
  for_each_difference(
      recipe, adapter, model_path,
      [&](const std::string& key, const std::string& value, const std::string& other) {
        if (stands_in(recipe, key))
          differences.push_back(fmt::format("lora.{}: {}, in the adapter {}", key, value, other));
      });
  if (differences.empty()) return;
  fail<ConfigError>(
      "lora.from_adapter: the adapter in {} is another than the recipe describes:\n  {}\nAn "
      "adapter keeps its form: leave these keys out, or leave out lora.from_adapter to begin a new "
      "one",
      recipe.lora.from_adapter, fmt::join(differences, "\n  "));
}

std::vector<std::string> differences_of_form(const Recipe& recipe, const LoraOptions& adapter,
                                             const std::string& model_path) {
  LoraOptions theirs = adapter;
  theirs.init = recipe.lora.init;  // checkpoints do not say how their adapters began
  std::vector<std::string> differences;
  for_each_difference(
      recipe, theirs, model_path,
      [&](const std::string& key, const std::string& value, const std::string& other) {
        differences.push_back(fmt::format("lora.{}: {} -> {}", key, other, value));
      });
  return differences;
}

}  // namespace qlora::recipes
