// Token ids that a model can read. A tokenizer may know more tokens than the model's embedding has
// rows (an added token for which nobody enlarged it); looking such an id up would end a run in the
// middle, so every id is checked on its way from text to model: rows, prompts, and the tokens that
// are appended to them.
#pragma once

#include <cstdint>
#include <span>

#include "data/tokenizer.h"

namespace qlora::data {

// Of a model that is not at hand: any id may be read.
constexpr int64_t kAnyRows = 0;

// FormatError that names the first id of `ids` without a row among `embedding_rows` (the model's,
// or kAnyRows), and its spelling.
void require_embedded(std::span<const TokenId> ids, const Tokenizer& tokenizer,
                      int64_t embedding_rows);

}  // namespace qlora::data
