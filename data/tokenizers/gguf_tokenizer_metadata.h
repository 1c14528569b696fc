// A tokenizer as the metadata of a GGUF file (tokenizer.ggml.* of ggml's docs/gguf.md), from
// which gguf_tokenizer.h makes it again.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "data/tokenizer.h"
#include "io/gguf.h"

namespace qlora::data {

struct GgufTokenizerOptions {
  int64_t rows = 0;                // of the embedding: as many tokens are written
  std::string chat_template = {};  // empty: none
  std::string tool_use_template = {};
  // Where a generation stops beside the tokenizer's EOS: eot, then eom.
  std::vector<TokenId> ends = {};
};

// tokenizer.ggml.model "gpt2" of a byte-level BPE, "llama" of a BPE of sentencepiece's kind, whose
// scores are those of tokenizer.model or, in a tokenizer.json, the ranks of its merges; "t5" of a
// unigram vocabulary in either file. Rows without a token are "[PAD<row>]"; tokens without a row
// are left out. ConfigError for a vocabulary of another kind, or a normalizer or pre-tokenizer that
// GGUF has no name for.
std::vector<std::pair<std::string, io::GgufValue>> gguf_tokenizer_metadata(
    const Tokenizer& tokenizer, const GgufTokenizerOptions& options);

}  // namespace qlora::data
