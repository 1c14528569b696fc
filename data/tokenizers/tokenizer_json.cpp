#include "data/tokenizers/tokenizer_json.h"

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/fingerprint.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pieces_beside.h"
#include "data/tokenizers/post_processor.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/token_decoder.h"
#include "data/tokenizers/token_model.h"
#include "data/tokenizers/tokenizer_config.h"
#include "data/tokenizers/word_cache.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

std::vector<AddedToken> parse_added_tokens(const io::JsonNode& root) {
  std::vector<AddedToken> tokens;
  const auto list = root.find("added_tokens");
  if (!list) return tokens;
  for (const io::JsonNode& node : list->elements()) {
    tokens.push_back(parse_added_token(node));
    tokens.back().id = static_cast<TokenId>(node.at("id").as_integer(0, kMaxVocabularySize - 1));
  }
  return tokens;
}

// An added token that the model's vocabulary knows has its id there; a new one has a free id.
void check_added_ids(const std::vector<AddedToken>& tokens, const Vocabulary& vocabulary,
                     const std::string& place) {
  for (const AddedToken& token : tokens) {
    const auto id = vocabulary.find(token.content);
    const std::string* holder = vocabulary.token(token.id);
    if (id && *id != token.id) {
      fail<FormatError>(
          "{}: the added token '{}' must have the id {} it has in the vocabulary, "
          "found {}",
          place, token.content, *id, token.id);
    }
    if (!id && holder) {
      fail<FormatError>("{}: the added token '{}' must have a free id, but {} belongs to '{}'",
                        place, token.content, token.id, *holder);
    }
  }
}

template <typename Make>
auto make_optional(const io::JsonNode& root, const char* key, Make make) -> decltype(make(root)) {
  const auto node = root.find(key);
  if (!node) return {};
  return make(*node);
}

class JsonTokenizer final : public Tokenizer {
 public:
  JsonTokenizer(TokenizerFiles files, const io::JsonNode& root, const TokenizerConfig& config,
                const std::string& place)
      : files_(std::move(files)),
        normalizer_(make_optional(root, "normalizer", make_normalizer)),
        pre_tokenizer_(make_optional(root, "pre_tokenizer", make_pre_tokenizer)),
        model_(make_token_model(root.at("model"))),
        surrounding_(make_optional(root, "post_processor", parse_post_processor)),
        decoder_(make_optional(root, "decoder", make_token_decoder)),
        added_(merge_added_tokens(parse_added_tokens(root), config, model_->vocabulary(), place),
               normalizer_.get(), place),
        special_(resolve_special_tokens(config, model_->vocabulary(), added_.tokens())),
        chat_template_(config.templates.chat),
        tool_use_template_(config.templates.tool_use) {
    check_added_ids(added_.tokens(), model_->vocabulary(), place);
    warn_of_other_pieces(files_, model_->vocabulary(), added_, place);
    vocab_size_ = model_->vocabulary().id_limit();
    for (const AddedToken& token : added_.tokens()) {
      vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{token.id} + 1);
    }
    for (const auto& ids : {surrounding_.before, surrounding_.after}) {
      for (const TokenId id : ids) {
        if (!has_token(id)) fail<FormatError>("{}: no token has the id {} that is used", place, id);
      }
    }
  }

  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const override {
    std::vector<TokenId> ids = encode_behind(text, {}, nullptr);
    if (add_special_tokens) {
      ids.insert(ids.begin(), surrounding_.before.begin(), surrounding_.before.end());
      ids.insert(ids.end(), surrounding_.after.begin(), surrounding_.after.end());
    }
    return ids;
  }

  std::vector<TokenId> encode_behind(std::string_view text, const TokenCut& from,
                                     std::vector<TokenCut>* cuts) const override {
    check_utf8(text.substr(from.offset), "text to tokenize");
    const WordCachePool::Lease cache(caches_);
    std::vector<TokenId> ids;
    for (const Segment& segment : added_.split_raw(text, from.offset)) {
      const auto& [begin, end] = segment.span;
      if (segment.id < 0) {
        encode_stretch(text.substr(begin, end - begin), begin == 0, *cache, ids);
        continue;
      }
      ids.push_back(segment.id);
      if (cuts) cuts->push_back({end, end + added_.raw_lookahead(), from.num_ids + ids.size()});
    }
    return ids;
  }

  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const override {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const TokenId id : ids) {
      const AddedToken* added = added_.find(id);
      if (added && added->special && skip_special_tokens) continue;
      if (!added && skip_special_tokens && !model_->vocabulary().token(id)) continue;
      tokens.push_back(added ? added_.spelling(*added) : id_to_token(id));
    }
    if (decoder_) decoder_->apply(tokens);
    std::string text;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && !decoder_) text += ' ';
      text += tokens[i];
    }
    return text;
  }

  std::string id_to_token(TokenId id) const override {
    if (const AddedToken* added = added_.find(id)) return added->content;
    const std::string* token = model_->vocabulary().token(id);
    if (token) return *token;
    fail<FormatError>("a token id must be one of the vocabulary's {} ids, found {}", vocab_size_,
                      id);
  }
  std::optional<TokenId> token_to_id(std::string_view token) const override {
    if (const AddedToken* added = added_.find(token)) return added->id;
    return model_->vocabulary().find(token);
  }
  bool is_special(TokenId id) const override {
    const AddedToken* added = added_.find(id);
    return added && added->special;
  }
  int64_t vocab_size() const override { return vocab_size_; }
  const std::string& chat_template() const override { return chat_template_; }
  const std::string& tool_use_template() const override { return tool_use_template_; }
  const SpecialTokens& special_tokens() const override { return special_; }
  void write_files(const std::string& directory) const override {
    write_tokenizer_files(files_, directory);
  }
  const TokenizerFiles& files() const override { return files_; }

  std::string fingerprint() const override {
    return tokenizer_fingerprint(files_.at("tokenizer.json"), added_, special_, chat_template_,
                                 tool_use_template_, "");
  }

 private:
  bool has_token(TokenId id) const { return added_.find(id) || model_->vocabulary().token(id); }

  // Text between raw added tokens.
  void encode_stretch(std::string_view stretch, bool starts_input, WordCache& cache,
                      std::vector<TokenId>& ids) const {
    std::string normalized;
    if (normalizer_) {
      normalized = normalizer_->apply(stretch);
      stretch = normalized;
    }
    for (const Segment& segment : added_.split_normalized(stretch)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      Pieces pieces;
      pieces.text = stretch.substr(segment.span.begin, segment.span.end - segment.span.begin);
      pieces.spans = {{0, pieces.text.size()}};
      pieces.starts_input = starts_input && segment.span.begin == 0;
      if (pre_tokenizer_) pre_tokenizer_->apply(pieces);
      for (const Span& span : pieces.spans) encode_piece(pieces.piece(span), cache, ids);
    }
  }

  void encode_piece(std::string_view piece, WordCache& cache, std::vector<TokenId>& ids) const {
    for (size_t begin = 0; begin < piece.size();) {
      const size_t end = model_->next_cut(piece, begin);
      const std::string_view word = piece.substr(begin, end - begin);
      begin = end;
      if (const auto* known = cache.find(word)) {
        ids.insert(ids.end(), known->begin(), known->end());
        continue;
      }
      std::vector<TokenId> fresh;
      model_->encode(word, fresh);
      ids.insert(ids.end(), fresh.begin(), fresh.end());
      cache.insert(word, std::move(fresh));
    }
  }

  TokenizerFiles files_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<TokenModel> model_;
  SurroundingTokens surrounding_;
  std::unique_ptr<TokenDecoder> decoder_;
  AddedTokens added_;
  SpecialTokens special_;
  std::string chat_template_, tool_use_template_;
  int64_t vocab_size_ = 0;
  mutable WordCachePool caches_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_json_tokenizer(TokenizerFiles files, const std::string& place,
                                               const std::string& name) {
  const nlohmann::json document = io::json_from_text(files.at("tokenizer.json"), name);
  const TokenizerConfig config = parse_tokenizer_config(files, place);
  return std::make_unique<JsonTokenizer>(std::move(files), io::JsonNode(document, name), config,
                                         place);
}

}  // namespace qlora::data
