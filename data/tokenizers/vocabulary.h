// Tokens and their ids, both ways. What every tokenizer model stands on.
//
// Ids are unique and lie in [0, kMaxVocabularySize); a token has one id. Ids may have gaps (files
// do), a gap has no token.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer.h"

namespace qlora::data {

// Far above any known vocabulary (262,144 in Gemma 3); keeps a lying file from filling the memory.
inline constexpr int64_t kMaxVocabularySize = int64_t{1} << 22;

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  // FormatError that names `place` if the id is out of range or taken, or the token has another id.
  void add(std::string_view token, int64_t id, std::string_view place);

  std::optional<TokenId> find(std::string_view token) const {
    const auto entry = ids_.find(token);
    if (entry == ids_.end()) return std::nullopt;
    return entry->second;
  }
  // The token of an id, null for a gap or an id out of range.
  const std::string* token(TokenId id) const {
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() ? tokens_[id] : nullptr;
  }

  size_t num_tokens() const { return ids_.size(); }
  // One more than the largest id.
  int64_t id_limit() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  std::deque<std::string> storage_;  // never moves its strings: the views below stay good
  std::vector<const std::string*> tokens_;
  std::unordered_map<std::string_view, TokenId> ids_;
};

}  // namespace qlora::data
