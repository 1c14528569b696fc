// The decoder section of a tokenizer.json: turns a list of tokens back into text, step by step.
//
// Known types: ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder, Sequence.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/json.h"

namespace qlora::data {

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // Rewrites the strings; the text is what they make when joined.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
};

// FormatError for a type that is not listed above.
std::unique_ptr<TokenDecoder> make_token_decoder(const io::JsonNode& node);

// The byte that a byte-fallback token "<0xHH>" stands for; -1 if the token is none.
int byte_of_fallback_token(std::string_view token);

}  // namespace qlora::data
