// The model section of a tokenizer.json: encodes one piece of text into ids of its vocabulary.
//
// Known types: BPE, Unigram.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "data/tokenizers/vocabulary.h"
#include "io/json.h"

namespace qlora::data {

class TokenModel {
 public:
  virtual ~TokenModel() = default;

  // Appends the ids of a piece (valid UTF-8, not empty). Safe to call from several threads.
  virtual void encode(std::string_view piece, std::vector<TokenId>& ids) const = 0;

  // Where a piece may be cut so that its parts, encoded one by one, give the same ids as the whole:
  // the first such place behind `from`, at most the piece's end. Lets long pieces share a cache.
  virtual size_t next_cut(std::string_view piece, size_t /*from*/) const { return piece.size(); }

  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  explicit TokenModel(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

 private:
  Vocabulary vocabulary_;
};

// FormatError for a type that is not listed above.
std::unique_ptr<TokenModel> make_token_model(const io::JsonNode& node);

}  // namespace qlora::data
