#include "data/tokenizers/gguf_tokenizer_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "base/error.h"
#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/byte_level_json.h"
#include "data/tokenizers/sentencepiece_proto.h"
#include "data/tokenizers/tokenizer_config.h"
#include "data/tokenizers/unigram_json.h"
#include "data/tokenizers/vocabulary.h"
#include "io/json.h"

namespace qlora::data {
namespace {
using nlohmann::json;

using Metadata = std::vector<std::pair<std::string, io::GgufValue>>;

constexpr const char* kPlace = "the tokenizer";
constexpr float kUnusedScore = -10000, kAddedScore = -1000;  // as llama.cpp's converter has them

// One entry a row of the embedding.
struct Tokens {
  explicit Tokens(int64_t rows)
      : types(static_cast<size_t>(rows), static_cast<int64_t>(PieceType::kUnused)),
        scores(static_cast<size_t>(rows), kUnusedScore) {
    for (int64_t row = 0; row < rows; ++row) texts.push_back(fmt::format("[PAD{}]", row));
  }
  bool has_row(int64_t id) const { return id >= 0 && id < static_cast<int64_t>(texts.size()); }
  void set(int64_t id, const std::string& text, PieceType type, float score) {
    if (!has_row(id)) return;
    const auto row = static_cast<size_t>(id);
    texts[row] = text;
    types[row] = static_cast<int64_t>(type);
    scores[row] = score;
  }

  std::vector<std::string> texts;
  std::vector<int64_t> types;
  std::vector<float> scores;
};

// Control tokens and those of the user; an unknown token stays one.
void set_added(const std::vector<AddedToken>& added, Tokens& tokens) {
  for (const AddedToken& token : added) {
    if (!tokens.has_row(token.id)) continue;
    const auto row = static_cast<size_t>(token.id);
    if (tokens.types[row] == static_cast<int64_t>(PieceType::kUnknown)) continue;
    tokens.set(token.id, token.content,
               token.special ? PieceType::kControl : PieceType::kUserDefined, kAddedScore);
  }
}

std::vector<AddedToken> added_in(const json& document) {
  std::vector<AddedToken> added;
  const io::JsonNode root(document, "tokenizer.json");
  if (const auto list = root.find("added_tokens"))
    for (const io::JsonNode& node : list->elements()) {
      added.push_back(parse_added_token(node));
      added.back().id = static_cast<TokenId>(node.at("id").as_integer(0, kMaxVocabularySize - 1));
    }
  return added;
}

// With those that tokenizer_config.json adds.
std::vector<AddedToken> all_added(const Tokenizer& tokenizer, std::vector<AddedToken> of_file,
                                  const Vocabulary& vocabulary) {
  return merge_added_tokens(std::move(of_file), parse_tokenizer_config(tokenizer.files(), kPlace),
                            vocabulary, kPlace);
}

bool is_byte_level(const json& step) {
  if (!step.is_object()) return false;
  if (step.value("type", "") == "ByteLevel") return true;
  const json parts = step.value("pretokenizers", json::array());
  return std::ranges::any_of(parts, is_byte_level);
}

Vocabulary vocabulary_of(const json& model) {
  Vocabulary vocabulary;
  for (const auto& [token, id] : model.at("vocab").items())
    vocabulary.add(token, id.get<int64_t>(), kPlace);
  return vocabulary;
}

void add_tokens(const Tokens& tokens, Metadata& metadata) {
  metadata.emplace_back("tokenizer.ggml.tokens", tokens.texts);
  metadata.emplace_back("tokenizer.ggml.token_type", tokens.types);
}

std::string merge_text(const json& merge) {
  return merge.is_string() ? merge.get<std::string>()
                           : merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>();
}

Tokens add_byte_level(const Tokenizer& tokenizer, const json& document, int64_t rows,
                      Metadata& metadata) {
  const auto pre = byte_level_pre(document);
  if (!pre)
    throw ConfigError(
        "--format gguf: GGUF files have no name for the pre-tokenizer or the normalizer of this "
        "tokenizer.json; export --format merged");
  const json& model = document.at("model");
  Tokens tokens(rows);
  for (const auto& [token, id] : model.at("vocab").items())
    tokens.set(id.get<int64_t>(), token, PieceType::kNormal, 0);
  set_added(all_added(tokenizer, added_in(document), vocabulary_of(model)), tokens);
  std::vector<std::string> merges;
  for (const json& merge : model.at("merges"))
    if (std::string text = merge_text(merge); !text.starts_with("#version"))
      merges.push_back(std::move(text));
  metadata = {{"tokenizer.ggml.model", std::string("gpt2")}, {"tokenizer.ggml.pre", *pre}};
  add_tokens(tokens, metadata);
  metadata.emplace_back("tokenizer.ggml.merges", std::move(merges));
  return tokens;
}

std::vector<AddedToken> control_pieces(const SentencePieceModel& model) {
  std::vector<AddedToken> added;
  for (size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].type == PieceType::kControl)
      added.push_back(
          {.id = static_cast<TokenId>(id), .content = model.pieces[id].text, .special = true});
  return added;
}

Tokens tokens_of_model(const Tokenizer& tokenizer, const SentencePieceModel& model, int64_t rows) {
  Tokens tokens(rows);
  Vocabulary vocabulary;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    vocabulary.add(piece.text, static_cast<int64_t>(id), kPlace);
    tokens.set(static_cast<int64_t>(id), piece.text, piece.type, piece.score);
  }
  set_added(all_added(tokenizer, control_pieces(model), vocabulary), tokens);
  return tokens;
}

bool is_byte_token(const std::string& token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
}

// A token's score is the lower, the later it is merged; what no merge gives comes last.
Tokens tokens_of_ranks(const Tokenizer& tokenizer, const json& document, int64_t rows) {
  const json& model = document.at("model");
  const Vocabulary vocabulary = vocabulary_of(model);
  const std::string unknown =
      model.contains("unk_token") && model["unk_token"].is_string() ? model["unk_token"] : json("");
  Tokens tokens(rows);
  const auto last = -static_cast<float>(model.at("merges").size()) - 1;
  for (const auto& [token, id] : model.at("vocab").items())
    tokens.set(id.get<int64_t>(), token,
               token == unknown       ? PieceType::kUnknown
               : is_byte_token(token) ? PieceType::kByte
                                      : PieceType::kNormal,
               last);
  float rank = 0;
  for (const json& merge : model.at("merges")) {
    std::string text = merge_text(merge);
    if (const size_t blank = text.find(' '); blank != std::string::npos) text.erase(blank, 1);
    const auto joined = vocabulary.find(text);
    ++rank;
    if (!joined || !tokens.has_row(*joined)) continue;
    float& score = tokens.scores[static_cast<size_t>(*joined)];
    score = std::max(score, -rank);
  }
  set_added(all_added(tokenizer, added_in(document), vocabulary), tokens);
  return tokens;
}

Tokens tokens_of_unigram(const Tokenizer& tokenizer, const json& document, int64_t rows) {
  const json& model = document.at("model");
  const json unknown = model.value("unk_id", json());
  const bool has_bytes = model.value("byte_fallback", false);
  Tokens tokens(rows);
  Vocabulary vocabulary;
  int64_t id = 0;
  for (const json& piece : model.at("vocab")) {
    const auto text = piece.at(0).get<std::string>();
    vocabulary.add(text, id, kPlace);
    tokens.set(id, text,
               unknown == id                      ? PieceType::kUnknown
               : has_bytes && is_byte_token(text) ? PieceType::kByte
                                                  : PieceType::kNormal,
               piece.at(1).get<float>());
    ++id;
  }
  set_added(all_added(tokenizer, added_in(document), vocabulary), tokens);
  return tokens;
}

// Whether a text begins as if a blank stood in front of it.
bool adds_space_prefix(const Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode("a", false);
  return !ids.empty() && tokenizer.id_to_token(ids.front()).starts_with("\xe2\x96\x81");
}

// As if of several blanks in a row there were one.
bool merges_blanks(const Tokenizer& tokenizer) {
  return tokenizer.encode("a  a", false) == tokenizer.encode("a a", false);
}

void add_scored(const Tokenizer& tokenizer, const std::string& kind, const Tokens& tokens,
                Metadata& metadata) {
  metadata = {{"tokenizer.ggml.model", kind}, {"tokenizer.ggml.pre", std::string("default")}};
  add_tokens(tokens, metadata);
  metadata.emplace_back("tokenizer.ggml.scores", tokens.scores);
  metadata.emplace_back("tokenizer.ggml.add_space_prefix", adds_space_prefix(tokenizer));
}

void add_unigram(const Tokenizer& tokenizer, const std::string& charsmap, const Tokens& tokens,
                 Metadata& metadata) {
  add_scored(tokenizer, "t5", tokens, metadata);
  metadata.emplace_back("tokenizer.ggml.remove_extra_whitespaces", merges_blanks(tokenizer));
  if (charsmap.empty()) return;
  const auto bytes = std::as_bytes(std::span(charsmap));
  metadata.emplace_back("tokenizer.ggml.precompiled_charsmap",
                        std::vector<std::byte>(bytes.begin(), bytes.end()));
}

Tokens add_unigram_document(const Tokenizer& tokenizer, const json& document, int64_t rows,
                            Metadata& metadata) {
  const auto charsmap = unigram_charsmap(document);
  if (!charsmap)
    throw ConfigError(
        "--format gguf: GGUF files have no word for the normalizer or the pre-tokenizer of this "
        "tokenizer.json; export --format merged");
  Tokens tokens = tokens_of_unigram(tokenizer, document, rows);
  add_unigram(tokenizer, *charsmap, tokens, metadata);
  return tokens;
}

Tokens add_sentencepiece_model(const Tokenizer& tokenizer, int64_t rows, Metadata& metadata) {
  const SentencePieceModel model =
      parse_model(tokenizer.files().at("tokenizer.model"), "tokenizer.model");
  if (model.kind != PieceModel::kBpe && model.kind != PieceModel::kUnigram)
    throw ConfigError(
        "--format gguf: tokenizer.model must be a BPE or a unigram model; others are not written "
        "to GGUF files; export --format merged");
  Tokens tokens = tokens_of_model(tokenizer, model, rows);
  if (model.kind == PieceModel::kBpe)
    add_scored(tokenizer, "llama", tokens, metadata);
  else
    add_unigram(tokenizer, model.charsmap, tokens, metadata);
  return tokens;
}

Tokens add_ranked(const Tokenizer& tokenizer, const json& document, int64_t rows,
                  Metadata& metadata) {
  Tokens tokens = tokens_of_ranks(tokenizer, document, rows);
  add_scored(tokenizer, "llama", tokens, metadata);
  return tokens;
}

void add_roles(const Tokenizer& tokenizer, const GgufTokenizerOptions& options,
               const Tokens& tokens, Metadata& metadata) {
  const SpecialTokens& special = tokenizer.special_tokens();
  const auto add = [&](const std::string& role, std::optional<int64_t> id) {
    if (id && tokens.has_row(*id))
      metadata.emplace_back("tokenizer.ggml." + role + "_token_id", static_cast<uint64_t>(*id));
  };
  const auto id_of = [](const std::optional<SpecialToken>& token) {
    return token ? std::optional<int64_t>(token->id) : std::nullopt;
  };
  add("bos", id_of(special.bos));
  add("eos", id_of(special.eos));
  add("unknown", id_of(special.unk));
  add("padding", id_of(special.pad));
  std::vector<int64_t> others;
  for (const TokenId id : options.ends)
    if ((!special.eos || id != special.eos->id) && std::ranges::count(others, id) == 0)
      others.push_back(id);
  constexpr const char* kRoles[] = {"eot", "eom"};
  for (size_t i = 0; i < std::min(others.size(), std::size(kRoles)); ++i) add(kRoles[i], others[i]);
}

// What the tokenizer puts around a text.
void add_surroundings(const Tokenizer& tokenizer, Metadata& metadata) {
  const SpecialTokens& special = tokenizer.special_tokens();
  const auto ids = tokenizer.encode("a", true);
  const size_t plain = tokenizer.encode("a", false).size();
  const bool bos = special.bos && ids.size() > plain && ids.front() == special.bos->id;
  const bool eos = special.eos && ids.size() > plain && ids.back() == special.eos->id;
  metadata.emplace_back("tokenizer.ggml.add_bos_token", bos);
  metadata.emplace_back("tokenizer.ggml.add_eos_token", eos);
}

}  // namespace

Metadata gguf_tokenizer_metadata(const Tokenizer& tokenizer, const GgufTokenizerOptions& options) {
  const auto& files = tokenizer.files();
  std::optional<json> document;
  if (files.contains("tokenizer.json"))
    document = io::parse_json(files.at("tokenizer.json"), "tokenizer.json");
  const json model = document ? document->value("model", json::object()) : json::object();
  const bool is_unigram = document && model.value("vocab", json()).is_array();
  const bool is_bpe = document && !is_unigram && model.value("type", "BPE") == "BPE";
  Metadata metadata;
  std::optional<Tokens> tokens;
  if (is_bpe && is_byte_level(document->value("pre_tokenizer", json())))
    tokens = add_byte_level(tokenizer, *document, options.rows, metadata);
  else if (is_unigram)
    tokens = add_unigram_document(tokenizer, *document, options.rows, metadata);
  else if (files.contains("tokenizer.model"))
    tokens = add_sentencepiece_model(tokenizer, options.rows, metadata);
  else if (is_bpe && model.value("byte_fallback", false))
    tokens = add_ranked(tokenizer, *document, options.rows, metadata);
  else
    throw ConfigError(
        "--format gguf: the tokenizer must be a byte-level BPE or one of sentencepiece's kind; "
        "export --format merged");
  add_roles(tokenizer, options, *tokens, metadata);
  add_surroundings(tokenizer, metadata);
  if (!options.chat_template.empty())
    metadata.emplace_back("tokenizer.chat_template", options.chat_template);
  if (!options.tool_use_template.empty()) {
    metadata.emplace_back("tokenizer.chat_template.tool_use", options.tool_use_template);
    metadata.emplace_back("tokenizer.chat_templates", std::vector<std::string>{"tool_use"});
  }
  return metadata;
}

}  // namespace qlora::data
