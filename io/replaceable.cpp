#include "io/replaceable.h"

#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

bool is_taken(const std::string& path) {
  std::error_code status;
  return fs::exists(fs::symlink_status(path, status));
}

bool is_empty_or_begins_with(const std::string& path, std::string_view head) {
  std::error_code status;
  if (!fs::is_regular_file(fs::symlink_status(path, status))) return false;
  if (fs::file_size(path, status) == 0 && !status) return true;
  std::string found(head.size(), '\0');
  std::ifstream(path, std::ios::binary).read(found.data(), static_cast<int64_t>(found.size()));
  return found == head;
}

}  // namespace

void require_replaceable(const std::string& path, std::string_view head, std::string_view what) {
  if (!is_taken(path) || is_empty_or_begins_with(path, head)) return;
  fail<ConfigError>("{} exists and is no {} of this program; name another file", path, what);
}

void require_new(const std::string& path) {
  if (is_taken(path)) fail<ConfigError>("{} exists; name another file", path);
}

}  // namespace qlora::io
