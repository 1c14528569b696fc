// vocab.json + merges.txt, the two files of the older byte-level tokenizers, as a tokenizer.json.
#pragma once

#include <string>

#include "data/tokenizers/tokenizer_files.h"

namespace qlora::data {

// Adds tokenizer.json to files that have vocab.json and merges.txt. The pre-tokenizer follows from
// tokenizer_class: GPT2Tokenizer (or none given), Qwen2Tokenizer.
// FormatError for another class.
void add_tokenizer_json(TokenizerFiles& files, const std::string& place);

}  // namespace qlora::data
