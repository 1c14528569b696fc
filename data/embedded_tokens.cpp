#include "data/embedded_tokens.h"

#include <algorithm>

#include "base/error.h"

namespace qlora::data {

void require_embedded(std::span<const TokenId> ids, const Tokenizer& tokenizer,
                      int64_t embedding_rows) {
  if (embedding_rows == kAnyRows) return;
  const auto beyond =
      std::find_if(ids.begin(), ids.end(), [&](TokenId id) { return id >= embedding_rows; });
  if (beyond == ids.end()) return;
  fail<FormatError>(
      "token {} is '{}' (id {}), for which the model has no embedding: it has {} rows, for the ids "
      "0 to {}; take the token out of the text, the chat template or the tokenizer's special "
      "tokens, or give the model a row for it (transformers: resize_token_embeddings)",
      beyond - ids.begin(), *beyond < tokenizer.vocab_size() ? tokenizer.id_to_token(*beyond) : "?",
      *beyond, embedding_rows, embedding_rows - 1);
}

}  // namespace qlora::data
