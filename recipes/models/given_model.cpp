#include "recipes/models/given_model.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "export/card_text.h"
#include "model/hub_cache.h"
#include "recipes/run_files/run_names.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr const char *kConfig = "config.json", *kAdapterConfig = "adapter_config.json";

bool is_checkpoint(const fs::path& path) {
  std::error_code none;
  return fs::exists(path / "MANIFEST.json", none) && fs::is_directory(path / "adapter", none);
}

bool holds(const std::string& path, const char* file) {
  std::error_code none;
  return fs::exists(fs::path(path) / file, none);
}

// A directory of a run's, and not of a model or an adapter into which its recipe was copied.
bool is_run_alone(const std::string& path, const char* own_file) {
  return is_run(path) && !holds(path, own_file);
}

std::string resolved(const std::string& model) {
  try {
    return model::resolve_model_path(model);
  } catch (const ConfigError& error) {
    fail<ConfigError>("--model: {}", error.what());
  }
}

}  // namespace

void require_given_run(const std::string& run_dir) {
  if (holds(run_dir, kRecipeFile)) return;
  if (run_dir.ends_with(".gguf") || holds(run_dir, kConfig))
    fail<ConfigError>("{0} is a model and no run; give it as --model {0}", run_dir);
  if (holds(run_dir, kAdapterConfig))
    fail<ConfigError>("{0} is an adapter and no run; give it as --model BASE --adapter {0}",
                      run_dir);
}

void require_given_model(const std::string& model, const std::string& adapter) {
  if (is_run_alone(model, kConfig))
    fail<ConfigError>("--model: {} is the directory of a run; give it alone, in place of --model{}",
                      model, adapter.empty() ? "" : " and --adapter");
  if (is_checkpoint(model))
    fail<ConfigError>(
        "--model: {} is a checkpoint of a run; give the run in place of --model, and --checkpoint "
        "{}",
        model, fs::canonical(model).filename().string());
  if (!adapter.empty() && is_run_alone(adapter, kAdapterConfig)) {
    const fs::path own = fs::path(adapter) / "adapter";
    fail<ConfigError>(
        "--adapter: {} is the directory of a run; give it alone, in place of --model and "
        "--adapter{}",
        adapter, fs::is_directory(own) ? ", or its adapter, " + own.string() : "");
  }
  resolved(model);
}

std::string path_of_given_model(const std::string& model) {
  if (is_run_alone(model, kConfig))
    fail<ConfigError>(
        "--model: {} is the directory of a run; make a model of it first: qlora export {} --format "
        "merged --output DIR",
        model, exporting::shell_word(model));
  if (is_checkpoint(model)) {
    const fs::path path = fs::canonical(model);
    fail<ConfigError>(
        "--model: {} is a checkpoint of a run; make a model of it first: qlora export {} "
        "--checkpoint {} --format merged --output DIR",
        model, exporting::shell_word(path.parent_path().string()), path.filename().string());
  }
  return resolved(model);
}

}  // namespace qlora::recipes
