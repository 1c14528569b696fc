#include "data/tokenizers/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/fingerprint.h"
#include "data/tokenizers/sentencepiece_proto.h"
#include "data/tokenizers/tokenizer_config.h"

namespace qlora::data {
namespace {

using sentencepiece::SentencePieceProcessor;

std::unique_ptr<SentencePieceProcessor> load(const std::string& model, const std::string& name) {
  auto processor = std::make_unique<SentencePieceProcessor>();
  const auto load = [&]() -> std::string {
    try {
      const auto status = processor->LoadFromSerializedProto(model);
      return status.ok() ? "" : status.ToString();
    } catch (const std::exception& error) {  // a piece with a null character, for one
      return error.what();
    }
  };
  if (const std::string reason = load(); !reason.empty()) {
    const SentencePieceModel parts = parse_model(model, name);  // which says what bytes lack
    const auto is_unknown = [](const SentencePiece& piece) {
      return piece.type == PieceType::kUnknown;
    };
    if (std::ranges::none_of(parts.pieces, is_unknown))
      fail<FormatError>(
          "{} must be a sentencepiece model, and has no piece that stands for unknown text (<unk>)",
          name);
    fail<FormatError>("{} must be a sentencepiece model; its library says: {}", name, reason);
  }
  if (processor->GetPieceSize() > kMaxVocabularySize) {
    fail<FormatError>("{} must have at most {} pieces, found {}", name, kMaxVocabularySize,
                      processor->GetPieceSize());
  }
  return processor;
}

Vocabulary read_pieces(const SentencePieceProcessor& processor, const std::string& name) {
  Vocabulary vocabulary;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    vocabulary.add(processor.IdToPiece(id), id, name);
  }
  return vocabulary;
}

// Roles that the config leaves open are those the model was trained with.
void complete_roles(const SentencePieceProcessor& processor, TokenizerConfig& config) {
  const auto offer = [&](const char* role, int id) {
    if (id >= 0) config.roles.emplace(role, processor.IdToPiece(id));
  };
  offer("bos_token", processor.bos_id());
  offer("eos_token", processor.eos_id());
  offer("unk_token", processor.unk_id());
  offer("pad_token", processor.pad_id());
}

std::vector<AddedToken> control_pieces(const SentencePieceProcessor& processor) {
  std::vector<AddedToken> tokens;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (!processor.IsControl(id)) continue;
    tokens.push_back({.id = id, .content = processor.IdToPiece(id), .special = true});
  }
  return tokens;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(TokenizerFiles files, TokenizerConfig config, const std::string& place,
                         const std::string& name)
      : files_(std::move(files)),
        plain_(load(without_dummy_prefix(files_.at("tokenizer.model")), name)),
        prefixed_(config.add_prefix_space.value_or(true)
                      ? load(files_.at("tokenizer.model"), name)
                      : load(without_dummy_prefix(files_.at("tokenizer.model")), name)),
        pieces_(read_pieces(*plain_, name)),
        added_({}, nullptr, place),
        legacy_(config.legacy.value_or(true)),
        chat_template_(config.templates.chat),
        tool_use_template_(config.templates.tool_use) {
    complete_roles(*plain_, config);
    for (const AddedToken& token : config.added_tokens) check_id(token, place);
    added_ = AddedTokens(merge_added_tokens(control_pieces(*plain_), config, pieces_, place),
                         nullptr, place);
    special_ = resolve_special_tokens(config, pieces_, added_.tokens());
    const bool is_t5 = config.tokenizer_class.starts_with("T5");
    add_bos_ = config.add_bos_token.value_or(!is_t5) && special_.bos;
    add_eos_ = config.add_eos_token.value_or(is_t5) && special_.eos;
    vocab_size_ = pieces_.id_limit();
    for (const AddedToken& token : added_.tokens()) {
      vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{token.id} + 1);
    }
  }

  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const override {
    std::vector<TokenId> ids = encode_behind(text, {}, nullptr);
    if (add_special_tokens && add_bos_) ids.insert(ids.begin(), special_.bos->id);
    if (add_special_tokens && add_eos_) ids.push_back(special_.eos->id);
    return ids;
  }

  std::vector<TokenId> encode_behind(std::string_view text, const TokenCut& from,
                                     std::vector<TokenCut>* cuts) const override {
    check_utf8(text.substr(from.offset), "text to tokenize");
    std::vector<TokenId> ids;
    for (const Segment& segment : added_.split_raw(text, from.offset)) {
      const auto& [begin, end] = segment.span;
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        if (cuts) cuts->push_back({end, end + added_.raw_lookahead(), from.num_ids + ids.size()});
        continue;
      }
      const auto chunk = text.substr(begin, end - begin);
      const bool prefix = legacy_ || begin == 0;
      std::vector<int> chunk_ids;
      const auto status = (prefix ? prefixed_ : plain_)->Encode(chunk, &chunk_ids);
      check(status.ok(), "sentencepiece cannot encode: {}", status.ToString());
      ids.insert(ids.end(), chunk_ids.begin(), chunk_ids.end());
    }
    return ids;
  }

  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const override {
    std::string text;
    std::vector<int> run;  // pieces between added tokens
    bool starts_text = true;
    bool begins_chunk = true;  // of encode(), which cuts no text at a token that it does not know
    const auto flush = [&] {
      if (run.empty()) return;
      std::string chunk;
      const bool prefix = begins_chunk && (legacy_ || starts_text);
      const auto status = (prefix ? prefixed_ : plain_)->Decode(run, &chunk);
      check(status.ok(), "sentencepiece cannot decode: {}", status.ToString());
      text += chunk;
      starts_text = false;
      run.clear();
    };
    for (const TokenId id : ids) {
      if (const AddedToken* added = added_.find(id)) {
        flush();
        begins_chunk = id != plain_->unk_id();
        // BOS in front is what encode() adds; the text begins behind it.
        if (text.empty() && special_.bos && id == special_.bos->id) {
          if (!skip_special_tokens) text += added->content;
          continue;
        }
        if (added->special && skip_special_tokens) continue;
        text += added->content;
        starts_text = false;
      } else {
        if (pieces_.token(id))
          run.push_back(id);
        else if (!skip_special_tokens)
          fail_on_id(id);
      }
    }
    flush();
    return text;
  }

  std::string id_to_token(TokenId id) const override {
    if (const AddedToken* added = added_.find(id)) return added->content;
    const std::string* piece = pieces_.token(id);
    if (!piece) fail_on_id(id);
    return *piece;
  }
  std::optional<TokenId> token_to_id(std::string_view token) const override {
    if (const AddedToken* added = added_.find(token)) return added->id;
    return pieces_.find(token);
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
    const bool has_prefix = prefixed_->EncodeAsIds("a") != plain_->EncodeAsIds("a");
    return tokenizer_fingerprint(
        files_.at("tokenizer.model"), added_, special_, chat_template_, tool_use_template_,
        fmt::format("legacy {} bos {} eos {} prefix {}", legacy_, add_bos_, add_eos_, has_prefix));
  }

 private:
  [[noreturn]] void fail_on_id(TokenId id) const {
    fail<FormatError>("a token id must be one of the vocabulary's {} ids, found {}", vocab_size_,
                      id);
  }

  // The model's own pieces keep their ids and names.
  void check_id(const AddedToken& token, const std::string& place) const {
    const std::string* piece = pieces_.token(token.id);
    if ((piece && *piece != token.content) || (!piece && pieces_.find(token.content))) {
      fail<FormatError>(
          "{}: the added token '{}' must have the id that tokenizer.model gives it, "
          "found {}",
          place, token.content, token.id);
    }
  }

  TokenizerFiles files_;
  // The model without and with the dummy prefix.
  std::unique_ptr<SentencePieceProcessor> plain_, prefixed_;
  Vocabulary pieces_;
  AddedTokens added_;
  bool legacy_, add_bos_ = false, add_eos_ = false;
  SpecialTokens special_;
  std::string chat_template_, tool_use_template_;
  int64_t vocab_size_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(TokenizerFiles files,
                                                        const std::string& place,
                                                        const std::string& name) {
  TokenizerConfig config = parse_tokenizer_config(files, place);
  return std::make_unique<SentencePieceTokenizer>(std::move(files), std::move(config), place, name);
}

}  // namespace qlora::data
