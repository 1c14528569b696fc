// The hash by which a resumed run recognises its tokenizer.
#pragma once

#include <string>
#include <string_view>

#include "data/tokenizer.h"
#include "data/tokenizers/added_tokens.h"

namespace qlora::data {

// Hash of everything that decides ids and template: the file with the vocabulary, the added tokens,
// the roles, the ids that end a generation, the templates, and `flags` (what else the tokenizer
// knows).
std::string tokenizer_fingerprint(std::string_view vocabulary_file, const AddedTokens& added,
                                  const SpecialTokens& special, std::string_view chat_template,
                                  std::string_view tool_use_template, std::string_view flags);

}  // namespace qlora::data
