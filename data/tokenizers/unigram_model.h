// The unigram language model of a tokenizer.json (Kudo 2018; the vocabularies of T5 and mT5).
//
// Of all ways to cut a piece into tokens it takes the one with the largest sum of scores (Viterbi).
// A character that no token covers costs the least score minus 10; a run of such characters becomes
// one unknown token, or the byte tokens <0xHH> of its UTF-8 (byte_fallback, if all of them exist).
#pragma once

#include <array>
#include <optional>
#include <unordered_map>

#include "data/tokenizers/token_model.h"

namespace qlora::data {

class UnigramModel final : public TokenModel {
 public:
  explicit UnigramModel(const io::JsonNode& node);

  void encode(std::string_view piece, std::vector<TokenId>& ids) const override;

 private:
  void append_unknown(std::string_view run, std::vector<TokenId>& ids) const;
  uint32_t child(uint32_t node, char c) const;

  std::vector<double> scores_;
  double unknown_score_;
  std::optional<TokenId> unknown_;
  bool byte_fallback_;
  // A trie over the tokens' bytes: (node << 8 | byte) -> node, and the token that ends at a node.
  std::unordered_map<uint64_t, uint32_t> children_;
  std::vector<TokenId> ends_;
  std::array<TokenId, 256> byte_tokens_;
};

}  // namespace qlora::data
