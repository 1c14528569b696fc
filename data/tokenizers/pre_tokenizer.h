// The pre_tokenizer section of a tokenizer.json: cuts normalized text into the pieces that the
// model encodes one by one.
//
// Known types: ByteLevel, Split, Digits, Whitespace, WhitespaceSplit, Punctuation, Metaspace,
// Sequence.
#pragma once

#include <memory>

#include "data/tokenizers/pieces.h"
#include "io/json.h"

namespace qlora::data {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

// FormatError for a type that is not listed above.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const io::JsonNode& node);

// GPT-2's pattern, the one that ByteLevel uses.
extern const char kGpt2Pattern[];

}  // namespace qlora::data
