// The post_processor section of a tokenizer.json: which special tokens go before and after a text.
//
// Known types: ByteLevel (changes offsets only), TemplateProcessing (its `single` form),
// BertProcessing, RobertaProcessing, Sequence.
#pragma once

#include <vector>

#include "data/tokenizer.h"
#include "io/json.h"

namespace qlora::data {

struct SurroundingTokens {
  std::vector<TokenId> before, after;
};

// FormatError for a type that is not listed above, or a template that does not use the text exactly
// once.
SurroundingTokens parse_post_processor(const io::JsonNode& node);

}  // namespace qlora::data
