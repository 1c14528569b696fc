#include "recipes/models/given_model.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "export/card_text.h"
#include "model/hub_cache.h"
#include "recipes/run_files/run_names.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

bool is_checkpoint(const fs::path& path) {
  return fs::exists(path / "MANIFEST.json") && fs::is_directory(path / "adapter");
}

std::string resolved(const std::string& model) {
  try {
    return model::resolve_model_path(model);
  } catch (const ConfigError& error) {
    fail<ConfigError>("--model: {}", error.what());
  }
}

}  // namespace

void require_given_model(const std::string& model, const std::string& adapter) {
  if (is_run(model))
    fail<ConfigError>("--model: {} is the directory of a run; give it alone, in place of --model{}",
                      model, adapter.empty() ? "" : " and --adapter");
  if (is_checkpoint(model))
    fail<ConfigError>(
        "--model: {} is a checkpoint of a run; give the run in place of --model, and --checkpoint "
        "{}",
        model, fs::canonical(model).filename().string());
  if (!adapter.empty() && is_run(adapter)) {
    const fs::path own = fs::path(adapter) / "adapter";
    fail<ConfigError>(
        "--adapter: {} is the directory of a run; give it alone, in place of --model and "
        "--adapter{}",
        adapter, fs::is_directory(own) ? ", or its adapter, " + own.string() : "");
  }
  resolved(model);
}

std::string path_of_given_model(const std::string& model) {
  if (is_run(model))
    fail<ConfigError>(
        "--model: {} is the directory of a run; make a model of it first: qlora export {} --format "
        "merged --output DIR",
        model, exporting::shell_word(model));
  return resolved(model);
}

}  // namespace qlora::recipes
