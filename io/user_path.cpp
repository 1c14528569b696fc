#include "io/user_path.h"

#include <cstdlib>
#include <filesystem>

#include "base/error.h"

namespace qlora::io {

std::string expand_home(const std::string& path) {
  if (!path.starts_with('~')) return path;
  if (path.size() > 1 && path[1] != '/')
    fail<ConfigError>("{}: only ~/ is expanded here, to your own home; write the path in full",
                      path);
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0')
    fail<ConfigError>("{}: ~ cannot be expanded, since HOME is not set; write the path in full",
                      path);
  return home + path.substr(1);
}

std::string user_directory(const char* variable, const std::string& below_home) {
  const char* named = std::getenv(variable);
  if (named != nullptr && *named == '/') return named;
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return "";
  return (std::filesystem::path(home) / below_home).string();
}

std::string last_part(const std::string& path) {
  const std::filesystem::path plain = std::filesystem::path(path).lexically_normal();
  return (plain.has_filename() ? plain : plain.parent_path()).filename().string();
}

}  // namespace qlora::io
