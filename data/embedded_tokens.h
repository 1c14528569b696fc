// Token ids that a model can read. A tokenizer may know more tokens than the model's embedding has
// rows (an added token for which nobody enlarged it); looking such an id up would end a run in the
// middle, so every id is checked on its way from text to model: rows, prompts, and the tokens that
// are appended to them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "data/tokenizer.h"

namespace qlora::data {

// Of a model that is not at hand: any id may be read.
constexpr int64_t kAnyRows = 0;

// What the decoder of a model with an encoder reads in front of its labels, and in place of labels
// that are not trained.
struct DecoderTokens {
  TokenId start = 0, pad = 0;
};

// What of a model decides how rows become ids.
struct ModelTokens {
  ModelTokens(int64_t rows = kAnyRows) : embedding_rows(rows) {}

  int64_t embedding_rows;                // or kAnyRows
  std::optional<DecoderTokens> decoder;  // of a model with an encoder
};

// FormatError that names the first id of `ids` without a row among `embedding_rows` (the model's,
// or kAnyRows), and its spelling.
void require_embedded(std::span<const TokenId> ids, const Tokenizer& tokenizer,
                      int64_t embedding_rows);

}  // namespace qlora::data
