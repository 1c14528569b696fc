#include "recipes/run_directory.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "io/atomic_write.h"
#include "recipes/recipe_yaml.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr const char* kRecipe = "recipe.resolved.yaml";

// What a run writes, and nothing else: --overwrite removes this.
bool belongs_to_a_run(const std::string& name) {
  if (name.starts_with("checkpoint-") || name.starts_with("events.out.tfevents.")) return true;
  for (const char* own : {kRecipe, "metrics.jsonl", "adapter", "best", "base"})
    if (name == own) return true;
  return false;
}

// All but the log, which the new run is already writing.
void remove_run(const std::string& path) {
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (belongs_to_a_run(entry.path().filename().string())) fs::remove_all(entry.path());
}

bool holds_anything(const std::string& path) {
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (entry.path().filename() != "log.txt") return true;
  return false;
}

void create(const std::string& path) {
  std::error_code status;
  fs::create_directories(path, status);
  if (status) fail<IoError>("output.dir: {} cannot be created: {}", path, status.message());
}

// An advisory lock on the directory; ConfigError if another process holds it.
std::shared_ptr<const void> lock_directory(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) fail<IoError>("output.dir: {} cannot be opened: {}", path, std::strerror(errno));
  std::shared_ptr<const void> lock(nullptr, [file](const void*) { close(file); });
  if (flock(file, LOCK_EX | LOCK_NB) != 0) {
    fail<ConfigError>("output.dir: another process is running in {}; stop it or choose another one",
                      path);
  }
  return lock;
}

}  // namespace

std::string RunDirectory::file(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

RunDirectory::RunDirectory(const Recipe& recipe) : path_(recipe.output.dir) {
  create(path_);
  lock_ = lock_directory(path_);
  const bool has_run = fs::exists(file(kRecipe));
  if (!has_run && holds_anything(path_)) {
    fail<ConfigError>(
        "output.dir: {} is not empty and holds no run; choose another directory or empty it",
        path_);
  }
  if (has_run && recipe.output.overwrite) {
    replaces_a_run_ = true;
  } else if (has_run) {
    continue_run(recipe);
  }
  log::open_file(file("log.txt"));
}

void RunDirectory::begin(const Recipe& recipe) const {
  if (replaces_a_run_) remove_run(path_);
  io::write_file_atomically(file(kRecipe), write_recipe(recipe));
}

void RunDirectory::continue_run(const Recipe& recipe) {
  if (recipe.train.resume == "never") {
    fail<ConfigError>(
        "output.dir: {} holds a run and train.resume is never; choose another directory, or "
        "replace the run with --overwrite",
        path_);
  }
  const std::optional<std::string> last = trainer::latest_checkpoint(path_);
  if (!last && recipe.train.resume == "auto") {
    replaces_a_run_ = true;  // nothing to lose or to go on from
    return;
  }
  const Recipe before = read_run_recipe(path_);
  const std::vector<std::string> changes = fixed_differences(before, recipe);
  if (!changes.empty()) {
    fail<ConfigError>(
        "output.dir: {} holds a run of another recipe, which cannot be continued with these "
        "changes:\n  {}\nSet another output.dir, or replace that run with --overwrite",
        path_, fmt::join(changes, "\n  "));
  }
  for (const std::string& change : free_differences(before, recipe))
    if (!change.starts_with("output.dir") && !change.starts_with("train.resume"))
      log::info("changed since the run began: {}", change);
  if (recipe.train.resume == "auto") {
    checkpoint_ = last;
  } else {
    checkpoint_ = recipe.train.resume;
    if (!fs::is_directory(*checkpoint_))
      fail<ConfigError>("train.resume: there is no checkpoint {}", *checkpoint_);
  }
  if (checkpoint_) trainer::verify_checkpoint(*checkpoint_);
}

Recipe read_run_recipe(const std::string& run_dir) {
  const fs::path path = fs::path(run_dir) / kRecipe;
  if (!fs::exists(path)) {
    fail<ConfigError>("{} is no run: it holds no {}", run_dir, kRecipe);
  }
  Recipe recipe = read_recipe(path.string());
  recipe.output.dir = fs::absolute(run_dir).lexically_normal().string();
  return recipe;
}

std::string adapter_of_run(const std::string& run_dir) {
  const fs::path adapter = fs::path(run_dir) / "adapter";
  if (fs::exists(adapter)) return adapter.string();
  const auto checkpoint = trainer::latest_checkpoint(run_dir);
  if (!checkpoint) {
    fail<ConfigError>("{} has no adapter yet: the run has saved no checkpoint", run_dir);
  }
  log::warning("{}: the run is not finished; its last checkpoint is used ({})", run_dir,
               *checkpoint);
  return (fs::path(*checkpoint) / "adapter").string();
}

}  // namespace qlora::recipes
