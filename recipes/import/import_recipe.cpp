#include "recipes/import/import_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/hub_id.h"
#include "base/nearest_word.h"
#include "io/read_file.h"
#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/recipe_text.h"
#include "recipes/import/tool.h"
#include "recipes/yaml/recipe_yaml.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

std::string unknown_sentence(const Tool& tool, const std::string& key) {
  std::vector<std::string> names;
  for (const ToolKey& known : tool.keys) names.push_back(known.name);
  const std::string near = nearest_word(key, names);
  return fmt::format("we know no such key of {}{}", tool.title,
                     near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

void convert_entries(const Node& map, const std::string& path, const Tool& tool, const Node& root,
                     Draft& draft) {
  for (const Node::Entry& entry : map.entries) {
    const std::string key = path.empty() ? entry.key : path + "." + entry.key;
    const Found found{key, entry.place, entry.value, map, root};
    const ToolKey* known = find_key(tool, key);
    const bool has_more = has_keys_within(tool, key);
    if (entry.value.is_map() && has_more && (!known || known->name != key))
      convert_entries(entry.value, key, tool, root, draft);
    else if (entry.value.kind == Node::Kind::kNull && (known || has_more) &&
             !(known && known->takes_null))
      draft.without_effect(found, "it has no value");
    else if (!known || !known->convert)
      draft.unknown(found, unknown_sentence(tool, key));
    else
      known->convert(found, *known, draft);
  }
}

constexpr size_t kLongestReference = 1000;  // of a file that refers to a text again and again

// "${output_dir}/logs", as OmegaConf writes what another key says.
void resolve_references(Node& node, const Node& root, int depth = 0) {
  for (Node& item : node.items) resolve_references(item, root, depth);
  for (Node::Entry& entry : node.entries) resolve_references(entry.value, root, depth);
  for (size_t begin = node.text.find("${"); begin != std::string::npos && depth < 8; ++depth) {
    const size_t end = node.text.find('}', begin);
    if (end == std::string::npos) return;
    const Node* other = in_file(root, node.text.substr(begin + 2, end - begin - 2));
    if (!other || !other->is_scalar() || other->text.size() > kLongestReference) return;
    node.text.replace(begin, end - begin + 1, other->text);
    begin = node.text.find("${");
  }
}

// One of steps and epochs, and evaluations only where there are rows for them.
void settle(Draft& draft) {
  if (draft.has("train.max_steps"))
    draft.withdraw("train.epochs", "train.max_steps decides how long the run is");
  const bool evaluates = draft.has_datasets("data.eval") || draft.has("data.eval_fraction");
  if (draft.has_datasets("data.eval"))
    draft.withdraw("data.eval_fraction", "data.eval has the rows to evaluate on");
  if (!evaluates) {
    draft.withdraw("train.eval_every", "there are no rows to evaluate on");
    draft.withdraw("train.early_stopping_patience", "there are no rows to evaluate on");
  }
  if (draft.has("quantization.threshold") &&
      !draft.text_of("quantization.method").starts_with("int8"))
    draft.withdraw("quantization.threshold", "weights are not quantized to 8 bits");
}

void apply_defaults(const Tool& tool, Draft& draft) {
  ProblemList none("");
  for (const ToolDefault& standard : tool.defaults) {
    if (standard.here == "train.epochs" && draft.has("train.max_steps")) continue;
    draft.set_default(standard.here, plain(parse_override(standard.value, "", none)), tool.title);
  }
}

void ask_for_essentials(const Tool& tool, Draft& draft) {
  if (draft.lacks("model.path"))
    draft.fill_in("model.path", "path: org/name", "the base model, which the file does not name");
  if (draft.lacks("data.train"))
    draft.fill_in("data.train",
                  fmt::format("train: [{{path: rows.jsonl, format: {}}}]",
                              learns_preferences(draft) ? "preference" : "chat"),
                  "the rows to train on, which the file does not name");
  if (draft.lacks("train.epochs") && draft.lacks("train.max_steps"))
    draft.fill_in("train.epochs", "epochs: 1",
                  fmt::format("the length of the run, which {}'s file does not say", tool.title));
}

// An adapter that is not here may be one of the Hub, whose name looks like a path.
void tell_of_adapter(Draft& draft) {
  const auto adapter = draft.values().find("lora.from_adapter");
  if (adapter == draft.values().end()) return;
  const std::string path = adapter->second.value.text;
  if (hub_id_of(path) && !is_there(path, draft.directory()))
    draft.warn(fmt::format(
        "there is no directory {0}; if {0} is an adapter of the Hub, download it and name its "
        "directory in lora.from_adapter, for nothing is downloaded here",
        path));
}

// What a recipe is refused for that lacks nothing: keys that do not fit each other.
void check(const std::string& directory, ImportedRecipe& imported) {
  if (!imported.missing.empty()) return;
  try {
    parse_recipe(imported.text, "the recipe", directory);
  } catch (const ConfigError& error) {
    imported.missing.emplace_back(error.what());
  }
}

size_t count(const ImportedRecipe& imported, Fate fate) {
  return static_cast<size_t>(
      std::count_if(imported.outcomes.begin(), imported.outcomes.end(),
                    [&](const Outcome& outcome) { return outcome.fate == fate; }));
}

std::string lines_of(const ImportedRecipe& imported, Fate fate, const char* title) {
  std::string lines;
  for (const Outcome& outcome : imported.outcomes)
    if (outcome.fate == fate)
      lines += fmt::format("  {}: {} ({})\n", outcome.place.str(), outcome.key, outcome.reason);
  return lines.empty() ? "" : std::string(title) + "\n" + lines;
}

std::string lines_of(const std::vector<std::string>& sentences, const std::string& title) {
  std::string lines;
  for (const std::string& sentence : sentences) lines += "  " + sentence + "\n";
  return lines.empty() ? "" : title + "\n" + lines;
}

}  // namespace

ImportedRecipe import_recipe_text(const std::string& text, const std::string& source,
                                  const std::string& directory, const std::string& from) {
  ProblemList problems(source);
  Node root = parse_yaml(text, source, problems);
  problems.throw_if_any();
  if (!root.is_map())
    fail<ConfigError>("{}: it must be a map of keys and values, got {}", source, root.describe());
  const Tool* tool = nullptr;
  try {
    tool = from.empty() ? &detect_tool(root) : &find_tool(from);
    const std::string why = tool->why_not_read ? tool->why_not_read(root) : "";
    if (!why.empty()) throw ConfigError(why);
  } catch (const ConfigError& error) {
    fail<ConfigError>("{}: {}", source, error.what());
  }
  const Node as_written = root;
  resolve_references(root, as_written);

  Draft draft(directory);
  convert_entries(root, "", *tool, root, draft);
  settle(draft);
  if (tool->finish) tool->finish(root, draft);
  apply_defaults(*tool, draft);
  draft.refuse_misfits();
  ask_for_essentials(*tool, draft);
  tell_of_adapter(draft);

  ImportedRecipe imported{tool->title,      recipe_text(draft, tool->title, source),
                          draft.outcomes(), default_lines(draft, tool->title),
                          draft.warnings(), {}};
  for (const FillIn& fill : draft.fill_ins())
    imported.missing.push_back(fmt::format("{}: {}", fill.here, fill.reason));
  check(directory, imported);
  return imported;
}

ImportedRecipe import_recipe(const std::string& path, const std::string& from) {
  if (fs::is_directory(path))
    fail<ConfigError>("{} is a directory; name the file of another tool", path);
  if (!fs::exists(path)) fail<ConfigError>("{} does not exist; a file was to be imported", path);
  return import_recipe_text(io::read_bytes(path), path, fs::path(path).parent_path().string(),
                            from);
}

std::string to_text(const ImportedRecipe& imported) {
  const size_t mapped = count(imported, Fate::kMapped);
  std::string text = fmt::format("read as a file of {}: {} of {} keys are in the recipe\n",
                                 imported.tool, mapped, imported.outcomes.size());
  text +=
      lines_of(imported, Fate::kRefused, "not taken over, although it would change the training:");
  text += lines_of(imported, Fate::kUnknown, "unknown:");
  text += lines_of(imported, Fate::kWithoutEffect, "without effect here:");
  text += lines_of(imported.defaults,
                   fmt::format("defaults of {} that differ from ours:", imported.tool));
  text += lines_of(imported.warnings, "to know:");
  text += lines_of(imported.missing, "to fill in before it can be trained:");
  return text;
}

}  // namespace qlora::recipes
