// A tokenizer.json, run: text -> added tokens split off -> normalizer -> pre-tokenizer -> model ->
// special tokens around it. What counts as right are the ids of Hugging Face `tokenizers`.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "data/tokenizers/tokenizer_files.h"

namespace qlora::data {

// `files` must hold tokenizer.json; the others supply roles, further added tokens and the template.
// `place` is what messages call their directory, `name` what they call the vocabulary's file.
// FormatError if a file is not what it must be or
// uses a component that is not supported (its name is in the message).
std::unique_ptr<Tokenizer> make_json_tokenizer(TokenizerFiles files, const std::string& place,
                                               const std::string& name);

}  // namespace qlora::data
