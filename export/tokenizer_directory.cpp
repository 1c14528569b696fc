#include "export/tokenizer_directory.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/chat_renderer.h"
#include "data/tokenizers/tokenizer_files.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The file as JSON; an empty object if it is not there.
Json read_object(const fs::path& path) {
  if (!fs::exists(path)) return Json::object();
  return io::ordered_json_from_text(io::read_bytes(path.string()));
}

void write_object(const fs::path& path, const Json& object) {
  io::write_file_atomically(path.string(), io::json_text(object, 2) + "\n");
}

bool is_own(const data::Tokenizer& tokenizer, const data::ChatTemplate& chat_template) {
  return chat_template.source() == tokenizer.chat_template() &&
         chat_template.tool_use_source() == tokenizer.tool_use_template();
}

void write_template_files(const fs::path& directory, const data::ChatTemplate& chat_template) {
  io::write_file_atomically((directory / data::kTemplateFile).string(), chat_template.source());
  if (const std::string& tool_use = chat_template.tool_use_source(); !tool_use.empty()) {
    fs::create_directory(directory / data::kAdditionalTemplates);
    io::write_file_atomically((directory / data::kToolUseFile).string(), tool_use);
  }
}

void write_templates(const fs::path& directory, const data::ChatTemplate& chat_template) {
  fs::remove(directory / "chat_template.json");
  fs::remove_all(directory / data::kAdditionalTemplates);
  write_template_files(directory, chat_template);
  const fs::path config_path = directory / "tokenizer_config.json";
  Json config = read_object(config_path);
  if (config.erase("chat_template") > 0) write_object(config_path, config);
}

// Beside templates by name transformers looks for the other one in a file alone.
bool lacks_default(const data::TokenizerFiles& files) {
  return files.contains(data::kToolUseFile) && !files.contains(data::kTemplateFile);
}

void write_stop_ids(const fs::path& directory, const data::Tokenizer& tokenizer,
                    const std::vector<data::TokenId>& ids) {
  const fs::path path = directory / "generation_config.json";
  Json config = read_object(path);
  config["eos_token_id"] = ids;
  const data::SpecialTokens& special = tokenizer.special_tokens();
  if (special.bos && !config.contains("bos_token_id")) config["bos_token_id"] = special.bos->id;
  if (special.pad && !config.contains("pad_token_id")) config["pad_token_id"] = special.pad->id;
  write_object(path, config);
}

bool puts_eos_behind_texts(const data::Tokenizer& tokenizer) {
  const auto& eos = tokenizer.special_tokens().eos;
  const auto ids = tokenizer.encode("a", true);
  return eos && !ids.empty() && ids.back() == eos->id;
}

void write_eos_token(const fs::path& directory, const std::string& token) {
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    Json config = read_object(directory / name);
    if (config.empty()) continue;
    config["eos_token"] = token;
    write_object(directory / name, config);
  }
}

}  // namespace

void write_tokenizer(const std::string& directory, const data::Tokenizer& tokenizer,
                     const data::ChatTemplate* chat_template) {
  tokenizer.write_files(directory);
  if (!chat_template) return;
  const fs::path place(directory);
  const bool is_models = is_own(tokenizer, *chat_template);
  if (!is_models || lacks_default(tokenizer.files())) write_templates(place, *chat_template);
  const data::SpecialTokens& special = tokenizer.special_tokens();
  const std::vector<data::TokenId> ids = data::answer_end_ids(tokenizer, chat_template);
  const bool is_known_end = ids.size() == special.end_of_generation.size();
  if (is_models && is_known_end) return;  // the model's files say it already
  write_stop_ids(place, tokenizer, ids);
  if (is_known_end) return;
  const bool writes_eos = chat_template->source().find("eos_token") != std::string::npos;
  if (writes_eos || puts_eos_behind_texts(tokenizer)) return;
  write_eos_token(place,
                  tokenizer.id_to_token(data::ends_of_turn(tokenizer, *chat_template).front()));
}

void write_other_template(const std::string& directory, const data::Tokenizer& tokenizer,
                          const data::ChatTemplate& chat_template) {
  if (!is_own(tokenizer, chat_template)) write_template_files(directory, chat_template);
}

}  // namespace qlora::exporting
