#include "recipes/idle_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>

#include "data/readers/reader.h"
#include "lora/targets.h"
#include "lora/whole_modules.h"
#include "model/architecture.h"
#include "optim/optimizer_names.h"
#include "recipes/fields/fields.h"
#include "recipes/run_files/run_names.h"

namespace qlora::recipes {
namespace {

// When a key acts, in words, with what the recipe says instead.
struct IdleKey {
  const char* key;
  bool (*acts)(const Recipe&);
  const char* of;
  std::string (*found)(const Recipe&);
};

bool is_one_of(const std::string& value, std::initializer_list<const char*> words) {
  return std::ranges::any_of(words, [&](const char* word) { return value == word; });
}

std::string method(const Recipe& r) { return r.quantization.method; }
std::string init(const Recipe& r) { return r.lora.init; }
std::string schedule(const Recipe& r) { return r.optim.schedule; }
std::string optimizer(const Recipe& r) { return r.optim.name; }

optim::Rule rule(const Recipe& r) { return optim::optimizer_kind(r.optim.name).rule; }

bool any_dataset(const Recipe& r, bool (*holds)(const Recipe&, const data::DatasetOptions&)) {
  for (const auto* datasets : {&r.data.train, &r.data.eval})
    for (const data::DatasetOptions& dataset : *datasets)
      if (holds(r, dataset)) return true;
  return false;
}

std::string formats(const Recipe& r) {
  std::vector<std::string> names;
  for (const auto* datasets : {&r.data.train, &r.data.eval})
    for (const data::DatasetOptions& dataset : *datasets)
      if (std::ranges::find(names, dataset.format) == names.end()) names.push_back(dataset.format);
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

bool is_alpaca(const Recipe&, const data::DatasetOptions& dataset) {
  return dataset.format == "alpaca";
}

bool takes_template(const Recipe& r, const data::DatasetOptions& dataset) {
  return is_one_of(dataset.format, {"chat", "sharegpt", "preference"}) ||
         (dataset.format == "alpaca" && r.data.prompt_style == "chat_template");
}

const IdleKey kKeys[] = {
    {"model.offload_dir", [](const Recipe& r) { return !r.model.device_map.empty(); },
     "a model.device_map", [](const Recipe&) -> std::string { return "none"; }},
    {"quantization.double_quant",
     [](const Recipe& r) {
       return !is_one_of(method(r), {"none", "as_stored", "int8", "int8_weight_only"});
     },
     "quantization.method nf4 and fp4", method},
    {"quantization.threshold", [](const Recipe& r) { return method(r) != "int8_weight_only"; },
     "quantization.method int8", method},
    {"quantization.skip_modules",
     [](const Recipe& r) {
       return !is_one_of(method(r), {"none", "as_stored"});
     },
     "a quantization.method that quantizes", method},
    {"lora.loftq.iterations", [](const Recipe& r) { return init(r) == "loftq"; }, "lora.init loftq",
     init},
    {"lora.loftq.svd",
     [](const Recipe& r) {
       return is_one_of(init(r), {"loftq", "pissa"});
     },
     "lora.init loftq and pissa", init},
    {"lora.loftq.original", [](const Recipe& r) { return init(r) == "loftq"; }, "lora.init loftq",
     init},
    {"optim.eps",
     [](const Recipe& r) {
       return rule(r) != optim::Rule::kMomentum && rule(r) != optim::Rule::kLion;
     },
     "optimizers that divide by a root", optimizer},
    {"optim.alpha", [](const Recipe& r) { return rule(r) == optim::Rule::kAdemamix; },
     "optim.name ademamix", optimizer},
    {"optim.alpha_ramp", [](const Recipe& r) { return rule(r) == optim::Rule::kAdemamix; },
     "optim.name ademamix", optimizer},
    {"optim.paged_resident_bytes",
     [](const Recipe& r) { return optim::optimizer_kind(r.optim.name).paged; },
     "optim.name paged_...", optimizer},
    {"optim.min_lr_ratio",
     [](const Recipe& r) {
       return is_one_of(schedule(r), {"cosine", "cosine_with_restarts", "polynomial", "wsd",
                                      "reduce_on_plateau"});
     },
     "optim.schedule cosine, cosine_with_restarts, polynomial, wsd and reduce_on_plateau",
     schedule},
    {"optim.num_cycles", [](const Recipe& r) { return schedule(r) == "cosine_with_restarts"; },
     "optim.schedule cosine_with_restarts", schedule},
    {"optim.power", [](const Recipe& r) { return schedule(r) == "polynomial"; },
     "optim.schedule polynomial", schedule},
    {"optim.decay_ratio", [](const Recipe& r) { return schedule(r) == "wsd"; },
     "optim.schedule wsd", schedule},
    {"optim.plateau_factor", [](const Recipe& r) { return schedule(r) == "reduce_on_plateau"; },
     "optim.schedule reduce_on_plateau", schedule},
    {"optim.plateau_patience", [](const Recipe& r) { return schedule(r) == "reduce_on_plateau"; },
     "optim.schedule reduce_on_plateau", schedule},
    {"data.mix_by",
     [](const Recipe& r) {
       return std::ranges::any_of(r.data.train, [](const auto& set) { return set.weight > 0; });
     },
     "data sets with a weight", [](const Recipe&) -> std::string { return "none"; }},
    {"data.cache_dir", [](const Recipe& r) { return r.data.cache != "false"; },
     "data.cache true and auto", [](const Recipe& r) { return r.data.cache; }},
    {"data.prompt_style", [](const Recipe& r) { return any_dataset(r, is_alpaca); },
     "rows of format alpaca", formats},
    {"train.early_stopping_min_delta",
     [](const Recipe& r) { return r.train.early_stopping_patience > 0; },
     "train.early_stopping_patience above 0", [](const Recipe&) -> std::string { return "0"; }},
};

// The value of a key as text; empty: of a map within a section, which is never at its default.
std::string value_of(const std::string& key, const Recipe& recipe) {
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields)
      if (section.name + "." + field.key == key) return to_yaml(field.write(recipe));
  return "";
}

bool is_at_default(const std::string& key, const Recipe& recipe) {
  static const Recipe defaults;
  const lora::LoftqOptions &loftq = recipe.lora.loftq, &plain = defaults.lora.loftq;
  if (key == "lora.loftq.iterations") return loftq.iterations == plain.iterations;
  if (key == "lora.loftq.svd") return loftq.svd == plain.svd;
  if (key == "lora.loftq.original") return loftq.original == plain.original;
  // Its default is true, which says more than a number where somebody wrote it.
  const std::filesystem::path file = std::filesystem::path(recipe.file).filename();
  const bool is_record = file == kRecipeFile || file == kReplacingRecipe;
  if (key == "quantization.double_quant" && !is_record) return false;
  return value_of(key, recipe) == value_of(key, defaults);
}

bool is_written(const Recipe& recipe, const std::string& key) {
  return recipe.places.contains(key) && !is_at_default(key, recipe);
}

// Whether lora.bias trains one.
bool has_trained_biases(const lora::LoraOptions& options, const model::Architecture& a) {
  const bool all = options.bias == "all";
  bool any = false;
  const auto look = [&](const std::string& module, const model::LinearSpec& linear) {
    any = any || (linear.bias && (all || lora::is_target(options, module)));
  };
  for_each_linear(a, look);
  look(a.head.names.hugging_face, a.head);
  if (all)
    for_each_norm(a, [&](const std::string&, const model::NormSpec& norm) {
      any = any || (norm.present() && norm.bias);
    });
  return any;
}

// Whether there are embeddings to train that are one matrix.
bool trains_tied_embeddings(const lora::LoraOptions& options, const model::Architecture& a) {
  if (!a.tied_embeddings) return false;
  const lora::TrainedEmbeddings trained =
      lora::trained_embeddings(options, true, a.vocab_size, a.embedding_names());
  return trained.whole_embedding || trained.whole_head || !trained.embedding_ids.empty() ||
         !trained.head_ids.empty();
}

// Two fields of a row that are read from one column.
void add_doubled_columns(const std::string& key, const data::DatasetOptions& dataset,
                         std::vector<std::string>& sentences) {
  for (const auto& [field, column] : dataset.fields) {
    if (column == field || column == "none") continue;
    for (const std::string& other : data::find_format(dataset.format, key).fields) {
      const auto given = dataset.fields.find(other);
      const std::string& its = given == dataset.fields.end() ? other : given->second;
      if (other == field || its != column) continue;
      if (given != dataset.fields.end() && its != other && other < field) continue;  // told already
      sentences.push_back(fmt::format("{}.fields: {} and {} are both read from the rows' {}", key,
                                      field, other, column));
    }
  }
}

}  // namespace

std::vector<std::string> idle_keys(const Recipe& recipe) {
  std::vector<std::string> sentences;
  for (const IdleKey& idle : kKeys)
    if (is_written(recipe, idle.key) && !idle.acts(recipe))
      sentences.push_back(fmt::format("{} changes nothing: it is of {}, found {}", idle.key,
                                      idle.of, idle.found(recipe)));
  if (recipe.places.contains("data.chat_template") && !recipe.data.chat_template.empty() &&
      !any_dataset(recipe, takes_template) && recipe.train.sample_prompts.empty())
    sentences.push_back(fmt::format(
        "data.chat_template: no row is written with it (format {}); it only goes into the "
        "adapter's directory",
        formats(recipe)));
  const std::pair<const char*, const std::vector<data::DatasetOptions>*> lists[] = {
      {"data.train", &recipe.data.train}, {"data.eval", &recipe.data.eval}};
  for (const auto& [list, datasets] : lists)
    for (size_t i = 0; i < datasets->size(); ++i)
      add_doubled_columns(fmt::format("{}[{}]", list, i), (*datasets)[i], sentences);
  return sentences;
}

std::vector<std::string> idle_keys_on(const model::ModelHeader& header, const Recipe& recipe) {
  std::vector<std::string> sentences;
  if (header.stored && method(recipe) != "as_stored")
    for (const char* key : {"quantization.block_size", "quantization.skip_modules"})
      if (is_written(recipe, key))
        sentences.push_back(fmt::format(
            "{} changes nothing: the base is stored quantized, and stays as it is", key));
  const lora::LoraOptions& options = recipe.lora;
  if (!options.from_adapter.empty()) return sentences;  // they are the adapter's
  const model::Architecture& architecture = header.architecture;
  if (options.bias != "none" && !has_trained_biases(options, architecture))
    sentences.push_back(
        fmt::format("lora.bias: {} changes nothing: {} has a bias", options.bias,
                    options.bias == "all" ? "no layer of the model" : "none of lora.targets"));
  if (options.ensure_weight_tying && !trains_tied_embeddings(options, architecture))
    sentences.emplace_back(
        "lora.ensure_weight_tying changes nothing: it is for embeddings that are tied and "
        "trained, by lora.modules_to_save or by tokens");
  return sentences;
}

}  // namespace qlora::recipes
