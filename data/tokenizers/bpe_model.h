// Byte-pair encoding as tokenizer.json writes it (Sennrich et al. 2016).
//
// A piece starts as its characters; then, again and again, the neighbouring pair with the lowest
// rank is joined, the leftmost on ties, until no pair is a merge. A character that is no token
// becomes the byte tokens <0xHH> of its UTF-8 (byte_fallback, if all of them exist), else the
// unknown token (a run of them fused if fuse_unk), else nothing. ignore_merges takes a whole piece
// that is a token as it is.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "data/tokenizers/pair_ranks.h"
#include "data/tokenizers/token_model.h"

namespace qlora::data {

class BpeModel final : public TokenModel {
 public:
  // FormatError if a merge names a token that is not in the vocabulary, if the unknown token is not
  // in it, or if dropout is set.
  explicit BpeModel(const io::JsonNode& node);

  void encode(std::string_view piece, std::vector<TokenId>& ids) const override;
  size_t next_cut(std::string_view piece, size_t from) const override;

 private:
  struct Symbol;
  void read_merges(const io::JsonNode& merges);
  void read_byte_tokens();
  void split_into_symbols(std::string_view piece, std::vector<Symbol>& symbols) const;
  bool append_byte_tokens(std::string_view character, std::vector<Symbol>& symbols) const;
  void merge_symbols(std::vector<Symbol>& symbols) const;

  PairRanks ranks_;
  std::string continuing_prefix_, end_suffix_;
  std::optional<TokenId> unknown_;
  bool fuse_unknown_, byte_fallback_, ignore_merges_;
  std::array<TokenId, 256> byte_tokens_;  // -1: no such token
  bool cuts_before_words_ = false;        // no merge reaches over the start of a word
};

}  // namespace qlora::data
