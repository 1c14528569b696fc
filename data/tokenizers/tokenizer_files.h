// The tokenizer files of a Hugging Face model directory as name -> bytes. Every tokenizer is made
// from such a set: read from a directory, or generated from a GGUF; write_files() writes it again,
// but for config.json, which is the model's and is read for the ends of answers.
#pragma once

#include <map>
#include <string>

namespace qlora::data {

using TokenizerFiles = std::map<std::string, std::string>;

// The tokenizer files that `directory` has: tokenizer.json, tokenizer.model, tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, vocab.json, merges.txt, chat_template.jinja,
// chat_template.json, generation_config.json, config.json,
// additional_chat_templates/*.jinja. IoError if one cannot be read.
TokenizerFiles read_tokenizer_files(const std::string& directory);

// Where a directory has a chat template, others by name, and the one for rows with tools.
constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kAdditionalTemplates = "additional_chat_templates";
constexpr const char* kToolUseFile = "additional_chat_templates/tool_use.jinja";

// Writes all files but config.json, making the directories. IoError if one cannot be written whole.
void write_tokenizer_files(const TokenizerFiles& files, const std::string& directory);

}  // namespace qlora::data
