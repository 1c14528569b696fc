#include "model/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "io/read_file.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;

fs::path cache_directory() {
  const auto set = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value ? value : "");
  };
  if (!set("HF_HUB_CACHE").empty()) return set("HF_HUB_CACHE");
  if (!set("HF_HOME").empty()) return set("HF_HOME") / "hub";
  if (!set("XDG_CACHE_HOME").empty()) return set("XDG_CACHE_HOME") / "huggingface" / "hub";
  return set("HOME") / ".cache" / "huggingface" / "hub";
}

bool is_hub_id(const std::string& text) {
  const size_t slash = text.find('/');
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/' || c == '@';
  };
  return slash != 0 && slash != std::string::npos && slash + 1 < text.size() &&
         text.find('/', slash + 1) == std::string::npos && text[0] != '.' &&
         !text.ends_with(".gguf") && std::ranges::all_of(text, allowed);
}

struct HubId {
  std::string id, revision = "main";
};

HubId hub_id_of(const std::string& text) {
  const size_t at = text.find('@');
  if (at == std::string::npos) return {text};
  return {text.substr(0, at), text.substr(at + 1)};
}

}  // namespace

std::optional<std::string> find_model(const std::string& path_or_id) {
  if (fs::exists(path_or_id)) return path_or_id;
  if (!is_hub_id(path_or_id)) return std::nullopt;
  const auto [id, revision] = hub_id_of(path_or_id);
  std::string folder = "models--" + id;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path repository = cache_directory() / folder;
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
  if (!is_hub_id(path_or_id)) {
    fail<ConfigError>(
        "model.path: {} does not exist; give a Hugging Face directory, a .gguf file, or a hub id "
        "(org/name) of the local cache",
        path_or_id);
  }
  const auto [id, revision] = hub_id_of(path_or_id);
  fail<ConfigError>(
      "model.path: {} is neither a path nor in the local Hugging Face cache ({}); download it "
      "with: "
      "hf download {}{}",
      path_or_id, cache_directory().string(), id,
      id == path_or_id ? "" : " --revision " + revision);
}

}  // namespace qlora::model
