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
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "recipes/run_files/run_names.h"
#include "recipes/run_files/set_aside.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// What a run reads, by key.
std::vector<std::pair<std::string, std::string>> inputs_of(const Recipe& recipe) {
  std::vector<std::pair<std::string, std::string>> inputs = {
      {"model.path", recipe.model.path},
      {"lora.from_adapter", recipe.lora.from_adapter},
      {"lora.loftq.original", recipe.lora.loftq.original},
      {"data.chat_template", recipe.data.chat_template}};
  for (const data::DatasetOptions& dataset : recipe.data.train)
    inputs.emplace_back("data.train", dataset.path);
  for (const data::DatasetOptions& dataset : recipe.data.eval)
    inputs.emplace_back("data.eval", dataset.path);
  if (recipe.train.samples_from_file())
    inputs.emplace_back("train.sample_prompts", recipe.train.sample_prompts.front());
  return inputs;
}

// Whether remove_run() would take `path` away: by its name, or by where links lead.
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

void remove_run(const std::string& path) {
  std::vector<std::string> own;
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (const std::string name = entry.path().filename().string();
        belongs_to_a_run(name) && name != kRecipeFile && name != kReplacingRecipe)
      own.push_back(entry.path().string());
  for (std::string& entry : own) entry = io::move_aside(entry);
  for (const std::string& entry : own) remove_partial_name([&] { io::remove_tree(entry); });
}

void require_inputs_stay(const Recipe& recipe, const std::string& run) {
  for (const auto& [key, path] : inputs_of(recipe))
    if (!path.empty() && lies_in_what_is_removed(path, run))
      fail<ConfigError>(
          "{}: {} lies in {}, the run that --overwrite removes; set another output.dir, or move it "
          "elsewhere first",
          key, path, run);
}

void tell_what_goes(const std::string& path) {
  const std::string what = what_goes_with(path);
  log::info("the run in {} is replaced{}", path,
            what.empty() ? ", which had trained no step" : "; what it had is removed: " + what);
}

}  // namespace qlora::recipes
