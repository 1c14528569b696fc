#include "model/hub_cache.h"

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/hub_id.h"
#include "io/read_file.h"
#include "io/user_path.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;

fs::path cache_directory() {
  // As huggingface_hub, which takes a relative XDG_CACHE_HOME as well.
  const auto set = [](const char* name) {
    const char* value = std::getenv(name);
    const std::string path = value ? value : "";
    return fs::path(path == "~" || path.starts_with("~/") ? io::expand_home(path) : path);
  };
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (!set(name).empty()) return set(name);
  if (!set("HF_HOME").empty()) return set("HF_HOME") / "hub";
  if (!set("XDG_CACHE_HOME").empty()) return set("XDG_CACHE_HOME") / "huggingface" / "hub";
  return set("HOME") / ".cache" / "huggingface" / "hub";
}

}  // namespace

std::optional<std::string> find_model(const std::string& path_or_id) {
  if (fs::exists(path_or_id)) return path_or_id;
  const auto hub = hub_id_of(path_or_id);
  if (!hub) return std::nullopt;
  const std::string revision = hub->revision.empty() ? "main" : hub->revision;
  const fs::path repository = cache_directory() / hub_folder(hub->id);
  std::string commit = revision;
  if (const fs::path ref = repository / "refs" / revision; fs::is_regular_file(ref)) {
    commit = io::read_bytes(ref.string());
    commit.erase(commit.find_last_not_of(" \t\r\n") + 1);
  }
  const fs::path snapshot = repository / "snapshots" / commit;
  if (commit.empty() || commit.find('/') != std::string::npos || !fs::is_directory(snapshot))
    return std::nullopt;
  return snapshot.string();
}

std::string resolve_model_path(const std::string& path_or_id) {
  if (auto path = find_model(path_or_id)) return *std::move(path);
  const auto hub = hub_id_of(path_or_id);
  if (!hub) {
    fail<ConfigError>(
        "{} does not exist; give a Hugging Face directory, a .gguf file, or a hub id "
        "(org/name) of the local cache",
        path_or_id);
  }
  fail<ConfigError>(
      "{} is neither a path nor in the local Hugging Face cache ({}); download it with: hf "
      "download "
      "{}{}",
      path_or_id, cache_directory().string(), hub->id,
      hub->revision.empty() ? "" : " --revision " + hub->revision);
}

}  // namespace qlora::model
