#include "data/tokenizers/post_processor.h"

#include "data/tokenizers/vocabulary.h"

namespace qlora::data {
namespace {

TokenId as_token_id(const io::JsonNode& node) {
  return static_cast<TokenId>(node.as_integer(0, kMaxVocabularySize - 1));
}

SurroundingTokens parse_template(const io::JsonNode& node) {
  SurroundingTokens tokens;
  int num_texts = 0;
  for (const io::JsonNode& item : node.at("single").elements()) {
    if (const auto special = item.find("SpecialToken")) {
      const std::string name = special->at("id").as_string();
      auto& side = num_texts == 0 ? tokens.before : tokens.after;
      for (const io::JsonNode& id : node.at("special_tokens").at(name).at("ids").elements()) {
        side.push_back(as_token_id(id));
      }
    } else {
      if (item.at("Sequence").at("id").as_string() != "A") item.reject("the sequence A");
      ++num_texts;
    }
  }
  if (num_texts != 1) node.at("single").reject("a template with the sequence A once");
  return tokens;
}

// [token, id] pairs named cls and sep, around the text.
SurroundingTokens parse_cls_sep(const io::JsonNode& node) {
  const auto id_of = [&](const char* name) {
    const auto pair = node.at(name).elements();
    if (pair.size() != 2) node.at(name).reject("a pair of token and id");
    return as_token_id(pair[1]);
  };
  return {{id_of("cls")}, {id_of("sep")}};
}

SurroundingTokens parse_sequence(const io::JsonNode& node) {
  SurroundingTokens all;
  for (const io::JsonNode& step : node.at("processors").elements()) {
    SurroundingTokens outer = parse_post_processor(step);
    outer.before.insert(outer.before.end(), all.before.begin(), all.before.end());
    all.after.insert(all.after.end(), outer.after.begin(), outer.after.end());
    all.before = std::move(outer.before);
  }
  return all;
}

}  // namespace

SurroundingTokens parse_post_processor(const io::JsonNode& node) {
  const std::string type = node.at("type").as_string();
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") return parse_template(node);
  if (type == "BertProcessing" || type == "RobertaProcessing") return parse_cls_sep(node);
  if (type == "Sequence") return parse_sequence(node);
  node.at("type").reject(
      "ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing or Sequence");
}

}  // namespace qlora::data
