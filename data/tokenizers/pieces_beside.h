// tokenizer.json and tokenizer.model are most often two forms of one vocabulary.
#pragma once

#include <string>

#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/tokenizer_files.h"
#include "data/tokenizers/vocabulary.h"

namespace qlora::data {

// Warns if the tokenizer.model among the files, if there is one, has other pieces than the
// vocabulary of tokenizer.json, which is used. Added tokens may lie on any id, and what is no
// sentencepiece model is left aside.
void warn_of_other_pieces(const TokenizerFiles& files, const Vocabulary& vocabulary,
                          const AddedTokens& added, const std::string& place);

}  // namespace qlora::data
