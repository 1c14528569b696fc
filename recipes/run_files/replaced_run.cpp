#include "recipes/run_files/replaced_run.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "data/shards.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "io/replaceable.h"
#include "recipes/run_files/run_names.h"
#include "recipes/run_files/set_aside.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

using Inputs = std::vector<std::pair<std::string, std::string>>;  // key, path

// A directory and what lies in it, which may be links to elsewhere; a file; or a hub's name.
void add_directory(const std::string& key, const std::string& path, Inputs& inputs) {
  inputs.emplace_back(key, path);
  std::error_code is_none;
  for (const auto& entry : fs::directory_iterator(path, is_none))
    inputs.emplace_back(key, entry.path().string());
}

// The path as it is given and the files of rows to which it leads.
void add_dataset(const std::string& key, const data::DatasetOptions& dataset, Inputs& inputs) {
  inputs.emplace_back(key, dataset.path);
  try {
    for (const std::string& file : data::shards_of(dataset)) inputs.emplace_back(key, file);
  } catch (const Error&) {  // none: told where the rows are read
  }
}

// What a run reads.
Inputs inputs_of(const Recipe& recipe) {
  Inputs inputs = {{"data.chat_template", recipe.data.chat_template}};
  add_directory("model.path", recipe.model.path, inputs);
  add_directory("lora.from_adapter", recipe.lora.from_adapter, inputs);
  add_directory("lora.loftq.original", recipe.lora.loftq.original, inputs);
  for (const data::DatasetOptions& dataset : recipe.data.train)
    add_dataset("data.train", dataset, inputs);
  for (const data::DatasetOptions& dataset : recipe.data.eval)
    add_dataset("data.eval", dataset, inputs);
  if (recipe.train.samples_from_file())
    inputs.emplace_back("train.sample_prompts", recipe.train.sample_prompts.front());
  return inputs;
}

// Whether replace_run() would take `path` away: by its name, or by where links lead.
bool lies_in_what_is_removed(const std::string& path, const std::string& run) {
  std::error_code is_no_path;  // a template's text
  const fs::path inside[] = {
      fs::absolute(path).lexically_normal().lexically_relative(
          fs::absolute(run).lexically_normal()),
      fs::weakly_canonical(path, is_no_path).lexically_relative(fs::weakly_canonical(run))};
  return std::ranges::any_of(inside, [](const fs::path& relative) {
    const std::string first = relative.empty() ? "" : relative.begin()->string();
    return belongs_to_a_run(first) && first != kRecipeFile && first != kReplacingRecipe;
  });
}

// The last step of which a run has written anything.
int64_t last_step_of(const std::string& path) {
  const std::vector<int64_t> saved = trainer::checkpoint_steps(path);
  int64_t last = saved.empty() ? 0 : saved.back();
  const fs::path metrics = fs::path(path) / "metrics.jsonl";
  if (!fs::is_regular_file(metrics)) return last;
  std::istringstream lines(io::read_bytes(metrics.string()));
  for (std::string line; std::getline(lines, line);) {
    const auto object = io::json_or_discarded(line);
    if (object.is_object() && object.contains("step") && object["step"].is_number_integer())
      last = std::max(last, object["step"].get<int64_t>());
  }
  return last;
}

// "200 steps, 4 checkpoints (the last: checkpoint-000200), adapter, base"
std::string what_goes_with(const std::string& path) {
  std::vector<std::string> parts;
  if (const int64_t steps = last_step_of(path); steps > 0)
    parts.push_back(fmt::format("{} {}", steps, steps == 1 ? "step" : "steps"));
  if (const auto saved = trainer::checkpoint_steps(path); !saved.empty())
    parts.push_back(fmt::format("{} {} (the last: {})", saved.size(),
                                saved.size() == 1 ? "checkpoint" : "checkpoints",
                                trainer::checkpoint_name(saved.back())));
  for (const char* name : {"adapter", "base"})
    if (fs::exists(fs::path(path) / name)) parts.emplace_back(name);
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (const std::string name = entry.path().filename().string(); is_set_aside(name))
      parts.push_back(name);
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

void remove_partial_name(const std::function<void()>& remove) {
  try {
    remove();
  } catch (const IoError& error) {
    log::warning("leftovers stay: {}", error.what());
  }
}

namespace {

std::vector<std::string> parts_of_run(const std::string& path) {
  std::vector<std::string> parts;
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (const std::string name = entry.path().filename().string();
        belongs_to_a_run(name) && name != kRecipeFile && name != kReplacingRecipe)
      parts.push_back(entry.path().string());
  return parts;
}

// All but the log, which the new run is already writing, and the recipes. Each is renamed before
// any is removed: what cannot be removed, or a kill, leaves nothing half removed that looks whole.
void remove_run(const std::string& path) {
  std::vector<std::pair<std::string, std::string>> moved;  // from, to
  try {
    for (const std::string& part : parts_of_run(path))
      moved.emplace_back(part, io::move_aside(part));
  } catch (const IoError&) {
    for (const auto& [from, to] : moved) io::move(to, from);
    throw;
  }
  for (const auto& [from, to] : moved) remove_partial_name([&] { io::remove_tree(to); });
}

std::string words_on_replaced(const std::string& path) {
  const std::string what = what_goes_with(path);
  return fmt::format(
      "the run in {} is replaced{}", path,
      what.empty() ? ", which had trained no step" : "; what it had is removed: " + what);
}

}  // namespace

void require_inputs_stay(const Recipe& recipe, const std::string& run) {
  for (const auto& [key, path] : inputs_of(recipe))
    if (!path.empty() && lies_in_what_is_removed(path, run))
      fail<ConfigError>(
          "{}: {} lies in {}, the run that --overwrite removes; set another output.dir, or move it "
          "elsewhere first",
          key, path, run);
}

void require_parts_can_go(const std::string& run) {
  for (const std::string& part : parts_of_run(run))
    if (const std::string obstacle = io::obstacle_to_replacing(part);
        !fs::is_symlink(part) && !obstacle.empty())
      fail<ConfigError>(
          "output.dir: {} {}, so that the run there cannot be replaced, and is left as it is; set "
          "another output.dir",
          part, obstacle);
}

void replace_run(const std::string& path, const std::string& recipe_text) {
  const std::string marker = (fs::path(path) / kReplacingRecipe).string();
  const bool was_cut_short = is_being_replaced(path);
  const std::string words = was_cut_short ? "" : words_on_replaced(path);
  const std::vector<std::string> before = parts_of_run(path);
  io::write_file_atomically(marker, recipe_text);  // from here on the old run counts no more
  try {
    remove_run(path);
  } catch (const IoError& error) {
    const bool is_whole = std::ranges::all_of(
        before, [](const std::string& part) { return fs::exists(fs::symlink_status(part)); });
    if (was_cut_short || !is_whole) throw;
    io::remove_file(marker);
    fail<IoError>("{}; the run there is left as it was", error.what());
  }
  if (!was_cut_short) log::info("{}", words);
  io::move(marker, (fs::path(path) / kRecipeFile).string());
}

}  // namespace qlora::recipes
