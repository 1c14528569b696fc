#include "base/hub_id.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <iterator>

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

bool is_commit(const std::string& text) {
  return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

constexpr const char* kFolder = "models--";

// "org/name" of "models--org--name"; empty: the folder is none of a model.
std::string id_of_folder(const std::string& folder) {
  if (!folder.starts_with(kFolder)) return "";
  const std::string id = folder.substr(std::string(kFolder).size());
  const size_t middle = id.find("--");
  if (middle == std::string::npos) return is_word(id) ? id : "";
  const std::string organisation = id.substr(0, middle), name = id.substr(middle + 2);
  return is_word(organisation) && is_word(name) ? organisation + "/" + name : "";
}

}  // namespace

std::optional<HubId> hub_id_of(const std::string& text) {
  if (text.ends_with(".gguf") || text.starts_with('.')) return std::nullopt;
  const size_t at = text.find('@');
  const HubId hub{text.substr(0, at), at == std::string::npos ? "" : text.substr(at + 1)};
  const size_t slash = hub.id.find('/');
  if (slash == std::string::npos
          ? !is_word(hub.id) || !is_commit(hub.revision)
          : !is_word(hub.id.substr(0, slash)) || !is_word(hub.id.substr(slash + 1)))
    return std::nullopt;
  if (at != std::string::npos && !is_revision(hub.revision)) return std::nullopt;
  std::error_code unknown;
  if (std::filesystem::exists(text, unknown)) return std::nullopt;
  return hub;
}

std::string hub_folder(const std::string& id) {
  const size_t slash = id.find('/');
  if (slash == std::string::npos) return kFolder + id;
  return kFolder + id.substr(0, slash) + "--" + id.substr(slash + 1);
}

std::optional<HubFile> hub_file_of(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path plain = fs::path(path).lexically_normal();
  for (auto part = plain.begin(); part != plain.end(); ++part) {
    const std::string id = id_of_folder(part->string());
    auto below = std::next(part);
    if (id.empty() || below == plain.end() || *below != "snapshots" || ++below == plain.end())
      continue;
    if (!is_word(below->string())) continue;
    HubFile found{{id, below->string()}, ""};
    fs::path file;
    while (++below != plain.end()) file /= *below;
    found.file = (file.has_filename() ? file : file.parent_path()).string();
    return found;
  }
  return std::nullopt;
}

std::string with_hub_id(const std::string& path_or_id) {
  const auto found = hub_file_of(path_or_id);
  if (!found || !(found->file.empty() || found->file.ends_with(".gguf"))) return path_or_id;
  std::string name = found->hub.id + "@" + found->hub.revision;
  // A name alone with a branch behind it is no id.
  return hub_id_of(name) ? name : path_or_id;
}

}  // namespace qlora
