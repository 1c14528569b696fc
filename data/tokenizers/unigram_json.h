// tokenizer.json documents for unigram vocabularies (T5, mT5) that come without one, from a GGUF,
// and the way back: what a GGUF file has to say of such a document.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizers/byte_level_json.h"

namespace qlora::data {

struct UnigramVocabulary {
  std::vector<std::pair<std::string, float>> pieces;  // with their scores, in the order of the ids
  int64_t unknown_id = 0;
  bool byte_fallback = false;
  // How sentencepiece prepares a text: the bytes of precompiled_charsmap (charsmap.h; empty: none),
  // add_dummy_prefix, remove_extra_whitespaces.
  std::string charsmap = {};
  bool adds_blank = true, merges_blanks = true;
};

// `added_tokens`: a list with ids. `bos`, `eos`: what goes around a text.
nlohmann::json unigram_document(const UnigramVocabulary& vocabulary, nlohmann::json added_tokens,
                                const std::optional<SurroundingToken>& bos,
                                const std::optional<SurroundingToken>& eos);

// The charsmap in the normalizer of a document, empty if there is none; nothing if the document
// prepares texts otherwise than a sentencepiece model can.
std::optional<std::string> unigram_charsmap(const nlohmann::json& document);

}  // namespace qlora::data
