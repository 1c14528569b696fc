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
constexpr const char* kAdditionalTemplates = "additional_chat_templates";
constexpr const char* kFileNames[] = {
    "tokenizer.json",          "tokenizer.model",     "tokenizer_config.json",
    "special_tokens_map.json", "vocab.json",          "merges.txt",
    "added_tokens.json",       "chat_template.jinja", "chat_template.json",
    "generation_config.json",  kModelConfig,
};

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
    const std::string name =
        (std::filesystem::path(kAdditionalTemplates) / entry.path().filename()).string();
    if (is_additional_template(name)) files[name] = io::read_bytes(entry.path().string());
  }
  return files;
}

bool is_additional_template(const std::string& name) {
  return name.starts_with(kAdditionalTemplates) && name.ends_with(".jinja");
}

void write_tokenizer_files(const TokenizerFiles& files, const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) fail_on_path(error.value(), "{} cannot be made", directory);
  for (const auto& [name, bytes] : files) {
    if (name == kModelConfig || is_additional_template(name)) continue;
    const auto path = (std::filesystem::path(directory) / name).string();
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
    if (!file) fail_on_path(errno, "{} cannot be written", path);
  }
}

}  // namespace qlora::data
