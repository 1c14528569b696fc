// The normalizer section of a tokenizer.json: rewrites the text between added tokens before it is
// cut into pieces.
//
// Known types: NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, ByteLevel, Precompiled (a
// sentencepiece model's own, charsmap.h), Sequence.
#pragma once

#include <memory>
#include <string>

#include "io/json.h"

namespace qlora::data {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string_view text) const = 0;
};

// FormatError for a type that is not listed above.
std::unique_ptr<Normalizer> make_normalizer(const io::JsonNode& node);

}  // namespace qlora::data
