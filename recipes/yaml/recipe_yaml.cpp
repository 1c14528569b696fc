#include "recipes/yaml/recipe_yaml.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "io/read_file.h"
#include "io/user_path.h"
#include "recipes/before_loading.h"
#include "recipes/fields/fields.h"
#include "recipes/yaml/overrides.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const Section& section : sections()) names.push_back(section.name);
  return names;
}

const Section* find_section(const std::string& name) {
  for (const Section& section : sections())
    if (section.name == name) return &section;
  return nullptr;
}

void read_sections(const Node& root, ProblemList& problems, Recipe& recipe) {
  for (const Node::Entry& entry : root.entries) {
    const Section* section = find_section(entry.key);
    if (!section) {
      problems.add(entry.place, unknown_key_sentence("", entry.key, section_names(), problems));
      continue;
    }
    problems.found(entry.key, entry.place);
    if (!entry.value.is_map()) {
      problems.covered(entry.key);
      problems.add(entry.place, fmt::format("{} must be a map of keys and values, got {}",
                                            entry.key, entry.value.describe()));
      continue;
    }
    read_fields(entry.value, entry.key, section->fields, problems, recipe);
  }
}

void require(const std::string& key, const char* why, ProblemList& problems) {
  if (problems.was_found(key) || problems.is_covered(key)) return;
  const std::string section = key.substr(0, key.find('.'));
  if (!problems.is_covered(section)) problems.add(key, fmt::format("{} {}", key, why));
  problems.covered(key);
}

void require_keys(const Recipe& recipe, ProblemList& problems) {
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields)
      if (field.required) require(section.name + "." + field.key, "is missing", problems);
  if (problems.was_found("quantization"))
    require("quantization.method", "is missing; write nf4, or none for a 16-bit base", problems);
  const std::pair<const char*, size_t> lists[] = {{"data.train", recipe.data.train.size()},
                                                  {"data.eval", recipe.data.eval.size()}};
  for (const auto& [list, size] : lists)
    for (size_t i = 0; i < size; ++i)
      for (const Field<data::DatasetOptions>& field : dataset_fields())
        if (field.required)
          require(fmt::format("{}[{}].{}", list, i, field.key), "is missing", problems);
}

// A sentence begins with the key it is about. One about a key that has a problem already would only
// repeat it.
void tell(const Faults& faults, ProblemList& problems) {
  for (const std::string& sentence : faults.sentences()) {
    if (problems.names_covered_key(sentence)) continue;
    const std::string key = sentence.substr(0, sentence.find_first_of(" :,"));
    problems.add(key, sentence);
    // A whole section would cover what other sentences say of its keys.
    if (key.find('.') != std::string::npos) problems.covered(key);
  }
}

void make_absolute(std::string& path, const fs::path& directory) {
  if (!path.empty()) path = (directory / path).lexically_normal().string();
}

// Every text of the recipe that is, or may be, a path, with its key.
template <typename Visit>
void for_each_path(Recipe& recipe, const Visit& visit) {
  visit("model.path", recipe.model.path);
  visit("model.offload_dir", recipe.model.offload_dir);
  visit("lora.from_adapter", recipe.lora.from_adapter);
  visit("lora.loftq.original", recipe.lora.loftq.original);
  visit("output.dir", recipe.output.dir);
  for (const auto& [list, datasets] :
       {std::pair{"data.train", &recipe.data.train}, std::pair{"data.eval", &recipe.data.eval}})
    for (size_t i = 0; i < datasets->size(); ++i)
      visit(fmt::format("{}[{}].path", list, i), (*datasets)[i].path);
  visit("data.cache_dir", recipe.data.cache_dir);
  visit("train.resume", recipe.train.resume);
  visit("data.chat_template", recipe.data.chat_template);
  if (recipe.train.samples_from_file())
    visit("train.sample_prompts", recipe.train.sample_prompts.front());
}

void expand_homes(Recipe& recipe, ProblemList& problems) {
  for_each_path(recipe, [&](const std::string& key, std::string& path) {
    try {
      path = io::expand_home(path);
    } catch (const ConfigError& error) {
      problems.covered(key);
      problems.add(key, fmt::format("{}: {}", key, error.what()));
    }
  });
}

// org/name or org/name@REV, where REV may have slashes, which is not there as a path: a hub id.
bool looks_like_hub_id(const std::string& path, const fs::path& directory) {
  if (fs::exists(directory / path) || path.starts_with('.') || path.starts_with('/')) return false;
  const std::string id = path.substr(0, path.find('@'));
  return std::ranges::count(id, '/') == 1 && !path.ends_with(".gguf");
}

// Whether the value of a key that may hold something else than a path is one.
bool is_path(const std::string& key, const std::string& value, const fs::path& directory) {
  if (key == "model.path") return !looks_like_hub_id(value, directory);
  if (key == "train.resume") return value != "auto" && value != "never";
  if (key != "data.chat_template") return true;
  std::error_code ignored;  // a template's text may be too long for a path
  return !value.empty() && value.find('\n') == std::string::npos &&
         fs::is_regular_file(directory / value, ignored);
}

void anchor_paths(const fs::path& directory, Recipe& recipe) {
  for_each_path(recipe, [&](const std::string& key, std::string& path) {
    if (is_path(key, path, directory)) make_absolute(path, directory);
  });
  // A file that is of no kind of prompts is refused by its name (run/samples.h).
  std::vector<std::string>& prompts = recipe.train.sample_prompts;
  std::error_code is_no_path;
  if (prompts.size() == 1 && !recipe.train.samples_from_file() && !prompts[0].empty() &&
      fs::is_regular_file(directory / prompts[0], is_no_path))
    make_absolute(prompts[0], directory);
}

// Whether the recipe leaves open what the run has decided and kept.
bool leaves_model_dtype_open(const Section& section, const Field<Recipe>& field,
                             const Recipe& now) {
  return section.name == "model" && field.key == "dtype" && now.model.dtype == "auto";
}

template <typename Visit>
void for_each_difference(const Recipe& before, const Recipe& now, const Visit& visit) {
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields) {
      const std::string was = to_yaml(field.write(before)), is = to_yaml(field.write(now));
      if (was != is && !leaves_model_dtype_open(section, field, now) &&
          !(field.comes_to_the_same && field.comes_to_the_same(before, now)))
        visit(fmt::format("{}.{}: {} -> {}", section.name, field.key, was, is), field);
    }
}

}  // namespace

namespace {

// What is wrong with the text goes to `problems`.
Recipe parse(const std::string& text, const std::string& source, const std::string& directory,
             const std::vector<std::string>& overrides, ProblemList& problems) {
  Node root = parse_yaml(text, source, problems);
  if (root.kind == Node::Kind::kNull) root = Node::map({});
  if (!root.is_map())
    fail<ConfigError>("{}: a recipe must be a map of sections, got {}", source, root.describe());
  for (const std::string& override_text : overrides) apply_override(override_text, problems, root);
  Recipe recipe;
  recipe.left_out = leave_out_replaced(overrides, root);
  recipe.file = source;
  read_sections(root, problems, recipe);
  expand_homes(recipe, problems);
  require_keys(recipe, problems);
  Faults faults;
  for (const Section& section : sections()) section.find_faults(recipe, faults);
  recipe.find_faults_across_sections(faults);
  tell(faults, problems);
  anchor_paths(directory.empty() ? fs::current_path() : fs::absolute(directory), recipe);
  recipe.places = problems.places();
  return recipe;
}

}  // namespace

Recipe parse_recipe(const std::string& text, const std::string& source,
                    const std::string& directory, const std::vector<std::string>& overrides) {
  ProblemList problems(source);
  Recipe recipe = parse(text, source, directory, overrides, problems);
  problems.throw_if_any();
  return recipe;
}

Recipe read_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  if (fs::is_directory(path)) fail<ConfigError>("{} is a directory; a recipe is a YAML file", path);
  if (!fs::exists(path))
    fail<ConfigError>("{} does not exist; a recipe was to be read from it", path);
  ProblemList problems(path);
  Recipe recipe =
      parse(io::read_bytes(path), path, fs::path(path).parent_path().string(), overrides, problems);
  if (!problems.empty()) look_before_loading(recipe, problems);  // and tell all of it at once
  problems.throw_if_any();
  return recipe;
}

void tell_left_out(const Recipe& recipe) {
  for (const std::string& sentence : recipe.left_out) log::write_info(sentence);
}

std::string write_recipe(const Recipe& recipe) {
  std::string text;
  for (const Section& section : sections()) {
    text += section.name + ":\n";
    for (const Field<Recipe>& field : section.fields)
      text += fmt::format("  {}: {}\n", field.key, to_yaml(field.write(recipe)));
  }
  return text;
}

std::vector<std::string> fixed_differences(const Recipe& before, const Recipe& now) {
  std::vector<std::string> sentences;
  for_each_difference(before, now, [&](const std::string& change, const Field<Recipe>& field) {
    if (field.on_resume == OnResume::kFixed) sentences.push_back(change);
  });
  return sentences;
}

std::vector<std::string> free_differences(const Recipe& before, const Recipe& now) {
  std::vector<std::string> sentences;
  for_each_difference(before, now, [&](const std::string& change, const Field<Recipe>& field) {
    if (field.on_resume == OnResume::kFree)
      sentences.push_back(change + ". " + field.resume_effect);
  });
  return sentences;
}

}  // namespace qlora::recipes
