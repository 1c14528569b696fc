// Tokenizers out of GGUF metadata (tokenizer.ggml.* of ggml's docs/gguf.md). The files of a Hugging
// Face directory are generated from it and read as such, so that what is encoded with is what
// write_files() writes.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "data/tokenizers/tokenizer_files.h"
#include "io/gguf.h"

namespace qlora::data {

// tokenizer.ggml.model "gpt2" and "t5" give a tokenizer.json, byte-level BPE and unigram, "llama" a
// sentencepiece tokenizer.model; beside it tokenizer_config.json, generation_config.json and, if
// there is one, chat_template.jinja. FormatError that names the file and key for other models,
// unknown pre-tokenizers and vocabularies that contradict themselves.
TokenizerFiles tokenizer_files_of(const io::GgufFile& file);

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const io::GgufFile& file);

}  // namespace qlora::data
