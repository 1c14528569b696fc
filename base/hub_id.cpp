#include "base/hub_id.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

namespace qlora {
namespace {

bool is_word(const std::string& text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

// Words with slashes between them, none of which begins with a dot, as git has it: a revision is
// the name of a file below the cache's.
bool is_revision(const std::string& text) {
  size_t begin = 0;
  for (size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find('/', begin);
    const std::string part = text.substr(begin, end == std::string::npos ? end : end - begin);
    if (!is_word(part) || part.starts_with('.')) return false;
  }
  return true;
}

}  // namespace

std::optional<HubId> hub_id_of(const std::string& text) {
  if (text.ends_with(".gguf") || text.starts_with('.')) return std::nullopt;
  const size_t at = text.find('@');
  const HubId hub{text.substr(0, at), at == std::string::npos ? "" : text.substr(at + 1)};
  const size_t slash = hub.id.find('/');
  if (slash == std::string::npos || !is_word(hub.id.substr(0, slash)) ||
      !is_word(hub.id.substr(slash + 1)))
    return std::nullopt;
  if (at != std::string::npos && !is_revision(hub.revision)) return std::nullopt;
  std::error_code unknown;
  if (std::filesystem::exists(text, unknown)) return std::nullopt;
  return hub;
}

}  // namespace qlora
