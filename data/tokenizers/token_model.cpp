#include "data/tokenizers/token_model.h"

#include "data/tokenizers/bpe_model.h"
#include "data/tokenizers/unigram_model.h"

namespace qlora::data {

std::unique_ptr<TokenModel> make_token_model(const io::JsonNode& node) {
  const auto type = node.find("type");
  if (!type) {  // older files: a list of [piece, score] tells Unigram from BPE
    const bool pieces = node.at("vocab").value().is_array();
    if (pieces) return std::make_unique<UnigramModel>(node);
    return std::make_unique<BpeModel>(node);
  }
  const std::string name = type->as_string();
  if (name == "BPE") return std::make_unique<BpeModel>(node);
  if (name == "Unigram") return std::make_unique<UnigramModel>(node);
  type->reject("BPE or Unigram");
}

}  // namespace qlora::data
