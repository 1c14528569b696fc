#include "recipes/import/draft.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "base/error.h"
#include "data/chat_template.h"
#include "data/readers/reader.h"
#include "optim/optimizer_names.h"
#include "recipes/fields/fields.h"
#include "recipes/fields/later_keys.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// Problems then begin with the key instead of a line of the other tool's file.
Node without_places(Node node) {
  node.place = {};
  for (Node& item : node.items) item = without_places(std::move(item));
  for (Node::Entry& entry : node.entries) {
    entry.place = {};
    entry.value = without_places(std::move(entry.value));
  }
  return node;
}

// The name of an optimizer that has so many betas; adamw if none has.
std::string optimizer_with_betas(size_t count) {
  for (const char* name : {"adamw", "ademamix", "sgd"})
    if (optim::optimizer_kind(name).betas.size() == count) return name;
  return "adamw";
}

// A recipe whose sections are complete, so that they only refuse what is put into it: beside
// `here`, which is to become `value`, stands what it needs.
Recipe complete_but_for(const std::string& here, const Node& value) {
  Recipe recipe;
  recipe.model.path = "model";
  recipe.data.train.resize(1);
  recipe.data.train[0].path = "rows.jsonl";
  if (here != "train.epochs") recipe.train.max_steps = 1;
  recipe.output.dir = "run";
  for (const char* key : {"quantization.threshold", "quantization.fp32_cpu_offload"})
    if (here == key) recipe.quantization.method = "int8";
  if (here == "model.max_memory") recipe.model.device_map = {{"", "auto"}};
  // Keys of objectives that learn from pairs.
  for (const char* key : {"train.beta", "train.loss_type", "train.label_smoothing"})
    if (here == key) recipe.train.objective = "dpo";
  if (here == "train.early_stopping_patience") recipe.train.eval_every = 1;
  if (here == "optim.betas") recipe.optim.name = optimizer_with_betas(value.items.size());
  return recipe;
}

// Whether a sentence is about a key: "train.beta must be above 0" is not about train.be.
bool is_about(const std::string& sentence, const std::string& key) {
  if (!sentence.starts_with(key)) return false;
  const std::string rest = sentence.substr(key.size());
  return rest.empty() || (!std::isalnum(static_cast<unsigned char>(rest[0])) && rest[0] != '_');
}

std::string on_one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

std::string problem_of_value(const std::string& here, const Node& value) {
  if (const std::string later = later_key(here); !later.empty()) return later;
  Recipe recipe = complete_but_for(here, value);
  ProblemList problems("");
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields) {
      if (section.name + "." + field.key != here) continue;
      try {
        field.read(without_places(value), here, problems, recipe);
        problems.throw_if_any();
      } catch (const ConfigError& error) {
        return on_one_line(error.what());
      }
      Faults faults;
      section.find_faults(recipe, faults);
      for (const std::string& sentence : faults.sentences())
        if (is_about(sentence, here)) return on_one_line(sentence);
    }
  return "";
}

namespace {

// A template is a text, a name that is built in, or a file: one that is there, or by its ending.
std::string problem_of_template(const std::string& choice, const std::string& directory) {
  if (choice.empty() || choice.find("{{") != std::string::npos ||
      choice.find("{%") != std::string::npos)
    return "";
  std::error_code ignored;
  for (const fs::path& place : {fs::path(directory) / choice, fs::path(choice)})
    if (fs::is_regular_file(place, ignored)) return "";
  for (const char* ending : {".jinja", ".jinja2", ".j2", ".txt", ".json"})
    if (choice.ends_with(ending)) return "";
  try {
    data::builtin_chat_template(choice);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

}  // namespace

std::string default_origin(const std::string& tool) { return "default of " + tool; }

void Draft::note(const Found& found, Fate fate, const std::string& here,
                 const std::string& reason) {
  outcomes_.push_back({found.key, found.place, fate, here, reason});
}

void Draft::set(const Found& found, const std::string& here, Node value) {
  std::string problem = problem_of_value(here, value);
  if (problem.empty() && here == "data.chat_template")
    problem = problem_of_template(value.text, directory_);
  if (!problem.empty()) return refuse(found, problem);
  const auto there = values_.find(here);
  if (there == values_.end()) {
    values_[here] = {std::move(value), found.key};
  } else if (to_yaml(there->second.value) != to_yaml(value)) {
    return refuse(found, fmt::format("{} says that {} is {}, this one {}", there->second.origin,
                                     here, to_yaml(there->second.value), to_yaml(value)));
  } else if (there->second.origin != found.key) {
    there->second.origin += ", " + found.key;
  }
  note(found, Fate::kMapped, here, "");
}

void Draft::append(const Found& found, const std::string& here,
                   const std::vector<std::string>& items) {
  Node list = has(here) ? values_[here].value : Node::list({});
  for (const std::string& item : items)
    if (std::none_of(list.items.begin(), list.items.end(),
                     [&](const Node& there) { return there.text == item; }))
      list.items.push_back(Node::string(item));
  if (list.items.empty()) return without_effect(found, "it is empty");
  const std::string before = has(here) ? values_[here].origin + ", " : "";
  values_.erase(here);
  set(found, here, std::move(list));
  if (has(here)) values_[here].origin = before + found.key;
}

void Draft::add_dataset(const std::string& list, Node entry, const std::string& missing) {
  datasets_[list].push_back(std::move(entry));
  if (!missing.empty()) fill_in(list, "", missing);
}

void Draft::set_in_datasets(const Found& found, const std::string& key, Node value) {
  const std::string here = "data.train[]." + key;
  if (const std::string problem = problem_of_value(here, value); !problem.empty())
    return refuse(found, problem);
  in_datasets_.push_back(Node::entry(key, std::move(value)));
  note(found, Fate::kMapped, here, "");
}

void Draft::take(const Found& found, const std::string& here) {
  note(found, Fate::kMapped, here, "");
}
void Draft::without_effect(const Found& found, const std::string& reason) {
  note(found, Fate::kWithoutEffect, "", reason);
}
void Draft::refuse(const Found& found, const std::string& reason) {
  note(found, Fate::kRefused, "", reason);
}
void Draft::unknown(const Found& found, const std::string& reason) {
  note(found, Fate::kUnknown, "", reason);
}

void Draft::set_default(const std::string& here, Node value, const std::string& tool) {
  if (lacks(here)) values_[here] = {std::move(value), default_origin(tool)};
}

void Draft::write(const std::string& here, Node value, const std::string& origin) {
  values_[here] = {std::move(value), origin};
}

void Draft::warn(const std::string& sentence) {
  if (std::ranges::find(warnings_, sentence) == warnings_.end()) warnings_.push_back(sentence);
}

void Draft::withdraw(const std::string& here, const std::string& reason) {
  take_back(here, Fate::kWithoutEffect, reason);
}

void Draft::take_back(const std::string& here, Fate fate, const std::string& reason) {
  values_.erase(here);
  for (Outcome& outcome : outcomes_)
    if (outcome.fate == Fate::kMapped && outcome.here == here)
      outcome = {outcome.key, outcome.place, fate, "", reason};
}

void Draft::refuse_misfits() {
  for (const Section& section : sections())
    for (auto misfit = misfit_of(section); !misfit.first.empty(); misfit = misfit_of(section))
      take_back(misfit.first, Fate::kRefused, misfit.second);
}

std::pair<std::string, std::string> Draft::misfit_of(const Section& section) const {
  Recipe recipe = complete_but_for(has("train.epochs") ? "train.epochs" : "", {});
  ProblemList problems("");
  Faults faults;
  std::vector<std::string> keys;
  for (const Field<Recipe>& field : section.fields) {
    const auto found = values_.find(section.name + "." + field.key);
    if (found == values_.end()) continue;
    keys.push_back(found->first);
    faults.collect(
        [&] { field.read(without_places(found->second.value), found->first, problems, recipe); });
  }
  section.find_faults(recipe, faults);
  for (const std::string& sentence : faults.sentences())
    for (const std::string& key : keys)
      if (is_about(sentence, key)) return {key, on_one_line(sentence)};
  return {};
}

void Draft::fill_in(const std::string& here, const std::string& line, const std::string& reason) {
  fill_ins_.push_back({here, line, reason});
}

std::string Draft::text_of(const std::string& here) const {
  const auto found = values_.find(here);
  return found == values_.end() ? "" : to_yaml(found->second.value);
}

bool Draft::has_datasets(const std::string& list) const { return datasets_.contains(list); }

bool Draft::lacks(const std::string& here) const {
  return !has(here) && !has_datasets(here) &&
         std::none_of(fill_ins_.begin(), fill_ins_.end(),
                      [&](const FillIn& fill) { return fill.here == here; });
}

namespace {

// A system message belongs to conversations alone.
bool has_place(const Node& entry, const std::string& key) {
  if (key != "system") return true;
  const Node::Entry* format = entry.find("format");
  return data::has_conversations(data::find_format(format ? format->value.text : "chat"));
}

}  // namespace

std::vector<Node> Draft::datasets(const std::string& list) const {
  const auto found = datasets_.find(list);
  if (found == datasets_.end()) return {};
  std::vector<Node> entries = found->second;
  for (Node& entry : entries)
    for (const Node::Entry& value : in_datasets_)
      if (!entry.find(value.key) && has_place(entry, value.key)) entry.entries.push_back(value);
  return entries;
}

}  // namespace qlora::recipes
