// What stands beside the vocabulary: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, the ends of answers (generation_config.h) and the chat template.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/tokenizer_files.h"
#include "data/tokenizers/vocabulary.h"

namespace qlora::data {

// The chat templates of a model, empty where it has none.
struct ModelTemplates {
  // chat_template.jinja, else tokenizer_config.json (of several named ones: "default"), else
  // chat_template.json.
  std::string chat;
  // What stands in its place where a row has tools: additional_chat_templates/tool_use.jinja, or
  // the one named "tool_use" beside "default".
  std::string tool_use;

  bool operator==(const ModelTemplates&) const = default;
};

struct TokenizerConfig {
  std::string tokenizer_class;
  // "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token" ->
  // text
  std::map<std::string, std::string> roles;
  // Further tokens that are special without a role.
  std::vector<std::string> additional_special_tokens;
  // added_tokens_decoder and added_tokens.json, with their ids.
  std::vector<AddedToken> added_tokens;
  std::optional<bool> add_bos_token, add_eos_token, add_prefix_space, legacy;
  ModelTemplates templates;
  std::set<TokenId> generation_eos_ids;
  // eos_token_id of config.json, where generation_config.json names none.
  std::set<TokenId> model_eos_ids;
};

// `place` is what messages call the directory. FormatError if a file is not what it must be.
TokenizerConfig parse_tokenizer_config(const TokenizerFiles& files, const std::string& place);

// The chat templates that a directory's files hold.
ModelTemplates chat_templates_in(const std::string& directory);

// The model's added tokens as transformers makes them from both files: those of tokenizer.json,
// then the config's (which override flags), then tokens with a role that neither lists. A token
// that the vocabulary has keeps its id; a new one takes the id after the largest.
std::vector<AddedToken> merge_added_tokens(std::vector<AddedToken> of_file,
                                           const TokenizerConfig& config,
                                           const Vocabulary& vocabulary, const std::string& place);

// Ids of the roles. A role whose token nobody knows is left out, and an end that only config.json
// names if it is no token.
SpecialTokens resolve_special_tokens(const TokenizerConfig& config, const Vocabulary& vocabulary,
                                     const std::vector<AddedToken>& added);

}  // namespace qlora::data
