#include "data/tokenizers/pieces_beside.h"

#include <optional>

#include "base/error.h"
#include "base/warn_once.h"
#include "data/tokenizers/sentencepiece_proto.h"
#include "data/tokenizers/vocabulary_kind.h"

namespace qlora::data {
namespace {

std::optional<SentencePieceModel> model_in(const TokenizerFiles& files, const std::string& place) {
  const auto file = files.find("tokenizer.model");
  if (file == files.end()) return std::nullopt;
  try {
    require_known_vocabulary(file->second, place);
    return parse_model(file->second, place);
  } catch (const FormatError&) {
    return std::nullopt;  // Llama 3's own file, say, which is tiktoken's
  }
}

// The first id that has another token in the one than in the other; nothing if there is none.
std::optional<TokenId> first_difference(const std::vector<SentencePiece>& pieces,
                                        const Vocabulary& vocabulary, const AddedTokens& added) {
  const auto count = static_cast<TokenId>(pieces.size());
  for (TokenId id = 0; id < count; ++id) {
    const std::string* token = vocabulary.token(id);
    if (pieces[id].type != PieceType::kNormal || added.find(id)) continue;
    if (!token || *token != pieces[id].text) return id;
  }
  for (TokenId id = count; id < vocabulary.id_limit(); ++id)
    if (vocabulary.token(id) && !added.find(id)) return id;
  return std::nullopt;
}

}  // namespace

void warn_of_other_pieces(const TokenizerFiles& files, const Vocabulary& vocabulary,
                          const AddedTokens& added, const std::string& place) {
  const auto model = model_in(files, place + "/tokenizer.model");
  if (!model) return;
  if (const auto id = first_difference(model->pieces, vocabulary, added))
    log::warning_once(
        "{}: tokenizer.json and tokenizer.model are two vocabularies, which differ from id {} on; "
        "tokenizer.json is used, as in transformers. Remove the one that is not the model's",
        place, *id);
}

}  // namespace qlora::data
