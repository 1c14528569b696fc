#include "data/tokenizers/tokenizer_files.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/path_error.h"
#include "io/json.h"
#include "io/read_file.h"

namespace qlora::data {
namespace {

constexpr const char* kModelConfig = "config.json";
constexpr const char* kFileNames[] = {
    "tokenizer.json",          "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.json",      "merges.txt",
    "added_tokens.json",       kTemplateFile,     "chat_template.json",
    "generation_config.json",  kModelConfig,
};

void make_directories(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) fail_on_path(error.value(), "{} cannot be made", directory.string());
}

}  // namespace

TokenizerFiles read_tokenizer_files(const std::string& directory) {
  TokenizerFiles files;
  for (const char* name : kFileNames) {
    const auto path = std::filesystem::path(directory) / name;
    if (std::filesystem::exists(path)) files[name] = io::read_bytes(path.string());
  }
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(directory) / kAdditionalTemplates, none)) {
    if (entry.path().extension() != ".jinja") continue;
    const std::string name =
        (std::filesystem::path(kAdditionalTemplates) / entry.path().filename()).string();
    files[name] = io::read_bytes(entry.path().string());
  }
  return files;
}

void write_tokenizer_files(const TokenizerFiles& files, const std::string& directory) {
  make_directories(directory);
  for (const auto& [name, bytes] : files) {
    if (name == kModelConfig) continue;
    const std::filesystem::path path = std::filesystem::path(directory) / name;
    if (path.parent_path() != directory) make_directories(path.parent_path());
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
    if (!file) fail_on_path(errno, "{} cannot be written", path.string());
  }
}

}  // namespace qlora::data
