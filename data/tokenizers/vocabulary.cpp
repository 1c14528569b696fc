#include "data/tokenizers/vocabulary.h"

#include "base/error.h"

namespace qlora::data {

void Vocabulary::add(std::string_view token, int64_t id, std::string_view place) {
  if (id < 0 || id >= kMaxVocabularySize) {
    fail<FormatError>("{}: the id of '{}' must lie in [0, {}), found {}", place, token,
                      kMaxVocabularySize, id);
  }
  if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(static_cast<size_t>(id) + 1);
  const std::string*& slot = tokens_[static_cast<size_t>(id)];
  if (slot) {
    fail<FormatError>("{}: an id must belong to one token, but {} is given to '{}' and to '{}'",
                      place, id, *slot, token);
  }
  const std::string& stored = storage_.emplace_back(token);
  if (!ids_.emplace(stored, static_cast<TokenId>(id)).second) {
    fail<FormatError>("{}: a token must have one id, but '{}' has {} and {}", place, token,
                      ids_.at(stored), id);
  }
  slot = &stored;
}

}  // namespace qlora::data
