#include "recipes/run_files/run_names.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "lora/adapter_file.h"
#include "recipes/run_files/last_save.h"
#include "recipes/run_files/run_lock.h"
#include "recipes/run_files/set_aside.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr const char* kNames[] = {
    kRecipeFile, kReplacingRecipe, "metrics.jsonl", "samples.jsonl", "memory.json", "adapter",
    "best",      "base",           "profile.json",  kReferenceFile,  kLastSave};

bool is_event_file(const std::string& name) {
  return name.starts_with("events.out.tfevents.") && name.ends_with(".qlora");
}

// The part of `path` that is a run's own name, in which the rest lies; empty if none is.
fs::path place_of_a_run(fs::path path) {
  for (; path.has_relative_path(); path = path.parent_path()) {
    const std::string name = path.filename().string();
    const bool is_own = belongs_to_a_run(name) || name == "log.txt" || name == kLockFile;
    if (is_own && is_run(path.parent_path().string())) return path;
  }
  return {};
}

}  // namespace

bool belongs_to_a_run(const std::string& name) {
  return std::ranges::find(kNames, name) != std::end(kNames) || trainer::step_of_checkpoint(name) ||
         is_set_aside(name) || is_event_file(name);
}

bool is_run(const std::string& path) {
  std::error_code status;
  return fs::exists(fs::path(path) / kRecipeFile, status) ||
         fs::exists(fs::path(path) / kReplacingRecipe, status);
}

bool has_adapter(const std::string& run_dir) {
  std::error_code status;
  return fs::exists(fs::path(run_dir) / "adapter" / lora::kAdapterTensors, status);
}

bool is_being_replaced(const std::string& run_dir) {
  return fs::exists(fs::path(run_dir) / kReplacingRecipe);
}

void require_no_place_of_a_run(const std::string& option, const std::string& path) {
  std::error_code is_no_path;
  for (const fs::path& place : {fs::absolute(path, is_no_path).lexically_normal(),
                                fs::weakly_canonical(path, is_no_path)}) {
    const fs::path own = place_of_a_run(place);
    if (own.empty()) continue;
    const std::string run = own.parent_path().string();
    fail<ConfigError>(
        "{}: {} is a name that the run in {} uses for what it writes itself; name a place outside "
        "of it, or another name there, as {}",
        option, path, run, (own.parent_path() / "exported").string());
  }
}

}  // namespace qlora::recipes
