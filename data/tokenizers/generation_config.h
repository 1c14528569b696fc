// What a model's files say of its answers: generation_config.json, and config.json where that names
// no end of an answer or is not there. The tokenizer's own eos_token ends answers beside these.
// transformers asks config.json only where generation_config.json is not there, and the tokenizer
// not at all: with a file that is there and names no end its answers go on to the limit.
#pragma once

#include <set>
#include <string>

#include "data/tokenizer.h"
#include "data/tokenizers/tokenizer_files.h"

namespace qlora::data {

// eos_token_id of generation_config.json, an id or a list of them. FormatError if it is not that.
std::set<TokenId> generation_eos_ids(const TokenizerFiles& files, const std::string& place);

// eos_token_id of config.json, or of its text_config. What is no id is left out: config.json is the
// model's, and whoever reads the model judges it.
std::set<TokenId> config_eos_ids(const TokenizerFiles& files);

// Names, once, the keys of generation_config.json that change answers in transformers and that this
// program does not apply, such as repetition_penalty. For whoever is about to generate.
void warn_of_generation_keys(const Tokenizer& tokenizer, const std::string& place);

}  // namespace qlora::data
