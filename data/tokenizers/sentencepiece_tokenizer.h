// A sentencepiece .model with what Hugging Face's Llama tokenizer adds on top of it (LlamaTokenizer
// of transformers):
//
// - Added tokens and control pieces are split off first and become one id; each chunk of text
//   between them is encoded on its own.
// - legacy (the default where the config says nothing): every chunk gets the dummy prefix, a blank
//   in front, if the model has one. Not legacy: only a chunk that begins the text does.
// - BOS is put in front unless add_bos_token is false, EOS behind if add_eos_token is true; T5
//   classes have it the other way round.
//
// decode() undoes that: it drops one blank where encode() puts one.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "data/tokenizers/tokenizer_files.h"

namespace qlora::data {

// `files` must hold tokenizer.model. `place` is what messages call their directory, `name` what
// they call the vocabulary's file. FormatError if sentencepiece refuses the model.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(TokenizerFiles files,
                                                        const std::string& place,
                                                        const std::string& name);

}  // namespace qlora::data
