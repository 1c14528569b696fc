#include "data/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/path_error.h"
#include "data/tokenizers/gguf_tokenizer.h"
#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "data/tokenizers/tokenizer_files.h"
#include "data/tokenizers/tokenizer_json.h"
#include "data/tokenizers/vocab_merges.h"
#include "data/tokenizers/vocabulary_kind.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> make_tokenizer(TokenizerFiles files, const std::string& vocabulary,
                                          const std::string& place, const std::string& name) {
  require_known_vocabulary(files.at(vocabulary), name);
  if (vocabulary == "tokenizer.json") return make_json_tokenizer(std::move(files), place, name);
  return make_sentencepiece_tokenizer(std::move(files), place, name);
}

std::unique_ptr<Tokenizer> load_directory(TokenizerFiles files, const std::string& place) {
  for (const char* vocabulary : {"tokenizer.json", "tokenizer.model"}) {
    if (!files.contains(vocabulary)) continue;
    return make_tokenizer(std::move(files), vocabulary, place, place + "/" + vocabulary);
  }
  if (files.contains("vocab.json") && files.contains("merges.txt")) {
    for (const char* name : {"vocab.json", "merges.txt"}) {
      require_known_vocabulary(files.at(name), place + "/" + name);
    }
    add_tokenizer_json(files, place);
    return make_json_tokenizer(std::move(files), place, place + "/vocab.json and merges.txt");
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(place)) {
    const std::string name = entry.path().filename().string();
    if (name != "tekken.json" && !name.ends_with(".tiktoken")) continue;
    require_known_vocabulary(io::read_bytes(entry.path().string()), entry.path().string());
  }
  if (fs::exists(fs::path(place) / "adapter_config.json"))
    fail<FormatError>(
        "{} is an adapter and holds no tokenizer: give its base model, and the directory with "
        "--adapter or lora.from_adapter",
        place);
  fail<FormatError>("{} must hold tokenizer.json, tokenizer.model, or vocab.json and merges.txt",
                    place);
}

// A file with a name of its own stands alone; tokenizer.json or tokenizer.model of a model
// directory belongs to the files beside it.
std::unique_ptr<Tokenizer> load_file(const fs::path& path, const std::string& standard_name) {
  TokenizerFiles files;
  if (path.filename() == standard_name) files = read_tokenizer_files(path.parent_path().string());
  files[standard_name] = io::read_bytes(path.string());
  const std::string place = path.parent_path().empty() ? "." : path.parent_path().string();
  return make_tokenizer(std::move(files), standard_name, place, path.string());
}

bool holds_vocabulary(const TokenizerFiles& files) {
  return files.contains("tokenizer.json") || files.contains("tokenizer.model") ||
         (files.contains("vocab.json") && files.contains("merges.txt"));
}

// Of the files that decide the ids.
bool are_alike(const TokenizerFiles& files, const TokenizerFiles& others) {
  const auto is_same = [&](const char* name) {
    const auto file = files.find(name), other = others.find(name);
    if (file == files.end() || other == others.end())
      return (file == files.end()) == (other == others.end());
    return file->second == other->second;
  };
  return std::ranges::all_of(
      std::initializer_list<const char*>{"tokenizer.json", "tokenizer.model",
                                         "tokenizer_config.json", "special_tokens_map.json",
                                         "added_tokens.json", "vocab.json", "merges.txt"},
      is_same);
}

void take_templates_of(const Tokenizer& base, TokenizerFiles& files) {
  std::erase_if(files, [](const auto& file) {
    return file.first == kTemplateFile || file.first == "chat_template.json" ||
           file.first.starts_with(kAdditionalTemplates);
  });
  if (const auto file = files.find("tokenizer_config.json"); file != files.end()) {
    auto config = io::ordered_json_or_discarded(file->second);  // the reader tells what is wrong
    if (config.is_object() && config.erase("chat_template") > 0)
      file->second = io::json_text(config, 2) + "\n";
  }
  if (!base.chat_template().empty()) files[kTemplateFile] = base.chat_template();
  if (!base.tool_use_template().empty()) files[kToolUseFile] = base.tool_use_template();
}

}  // namespace

const std::string& Tokenizer::tool_use_template() const {
  static const std::string none;
  return none;
}

std::vector<TokenId> Tokenizer::encode_behind(std::string_view text, const TokenCut& from,
                                              std::vector<TokenCut>*) const {
  check(from.offset == 0, "encode_behind: this tokenizer knows no cuts");
  return encode(text, false);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  if (!fs::exists(path))
    fail<PathError>("{} does not exist; a tokenizer was to be read from it", path);
  if (fs::is_directory(path)) return load_directory(read_tokenizer_files(path), path);
  if (fs::path(path).filename() == "config.json")
    fail<FormatError>(
        "{} describes a model and holds no tokenizer; give the directory of its files", path);
  const std::string extension = fs::path(path).extension().string();
  if (extension == ".json") return load_file(path, "tokenizer.json");
  if (extension == ".model") return load_file(path, "tokenizer.model");
  if (extension == ".tiktoken") require_known_vocabulary(io::read_bytes(path), path);
  if (extension == ".gguf") return make_gguf_tokenizer(io::GgufFile(path));
  for (const char* weights : {".safetensors", ".bin", ".pt", ".pth"})
    if (extension == weights)
      fail<ConfigError>(
          "{} holds weights and no tokenizer; give the directory of the model's files", path);
  fail<ConfigError>(
      "a tokenizer must be a model directory, a tokenizer.json, a sentencepiece .model "
      "or a .gguf, found {}",
      path);
}

std::unique_ptr<Tokenizer> load_adapter_tokenizer(const std::string& directory,
                                                  const Tokenizer& base) {
  TokenizerFiles files = read_tokenizer_files(directory);
  if (!holds_vocabulary(files) || are_alike(files, base.files())) return nullptr;
  for (const char* name : {"generation_config.json", "config.json"})
    if (const auto file = base.files().find(name); file != base.files().end())
      files.emplace(name, file->second);
  take_templates_of(base, files);
  return load_directory(std::move(files), directory);
}

}  // namespace qlora::data
