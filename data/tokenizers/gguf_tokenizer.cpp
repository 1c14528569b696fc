#include "data/tokenizers/gguf_tokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "base/warn_once.h"
#include "data/tokenizers/byte_level_json.h"
#include "data/tokenizers/sentencepiece_proto.h"
#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "data/tokenizers/tokenizer_json.h"
#include "data/tokenizers/unigram_json.h"
#include "data/tokenizers/vocabulary.h"
#include "io/gguf_kind.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

using nlohmann::json;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kT5 = "t5";

// The vocabulary of a GGUF: tokens in the order of their ids, with types.
class GgufVocabulary {
 public:
  explicit GgufVocabulary(const io::GgufFile& file) : file_(file), tokens_(file.texts(kTokens)) {
    const size_t size = tokens_.size();
    if (size == 0 || size > static_cast<size_t>(kMaxVocabularySize)) {
      fail<FormatError>("{}: {} must hold 1 to {} tokens, found {}", file.path(), kTokens,
                        kMaxVocabularySize, size);
    }
    types_.assign(size, static_cast<int64_t>(PieceType::kNormal));
    if (file.has("tokenizer.ggml.token_type")) types_ = file.integers("tokenizer.ggml.token_type");
    require_length("tokenizer.ggml.token_type", types_.size());
    for (const std::string& token : tokens_) check_utf8(token, file.path() + ": " + kTokens);
  }

  const std::vector<std::string>& tokens() const { return tokens_; }
  PieceType type(size_t id) const {
    const int64_t type = types_[id];
    // Undefined, which llama.cpp looks up like others, but not in unigram vocabularies.
    if (type == 0) return is_t5() ? PieceType::kUnused : PieceType::kNormal;
    if (type < 0 || type > static_cast<int64_t>(PieceType::kByte)) {
      fail<FormatError>("{}: tokenizer.ggml.token_type must be 0 to 6, token {} has {}",
                        file_.path(), id, type);
    }
    return static_cast<PieceType>(type);
  }
  // The id for what the vocabulary cannot spell.
  int64_t unknown_id() const {
    if (const auto token = role("unknown")) return token->id;
    const auto first = std::ranges::find(types_, static_cast<int64_t>(PieceType::kUnknown));
    return first == types_.end() ? 0 : first - types_.begin();
  }
  // As sentencepiece wants them, which knows one unknown token: others that have its type fill a
  // vocabulary up, and no text becomes one.
  PieceType piece_type(size_t id) const {
    if (static_cast<int64_t>(id) == unknown_id()) return PieceType::kUnknown;
    return type(id) == PieceType::kUnknown ? PieceType::kUnused : type(id);
  }
  void require_length(const char* key, size_t length) const {
    if (length == tokens_.size()) return;
    fail<FormatError>("{}: {} must have an entry for each of the {} tokens, found {}", file_.path(),
                      key, tokens_.size(), length);
  }

  // The id that tokenizer.ggml.<role>_token_id gives; nothing if it is missing, or beyond the
  // vocabulary (-1 is written as 4294967295), which llama.cpp takes for missing, too.
  std::optional<SurroundingToken> role(const std::string& name) const {
    const std::string key = "tokenizer.ggml." + name + "_token_id";
    const auto size = static_cast<int64_t>(tokens_.size());
    int64_t id = file_.integer_or(key, INT64_MIN, INT64_MAX, usual_id(name));
    if (file_.has(key) && (id < 0 || id >= size)) {
      log::warning_once("{}: {} is {}, which is none of the {} tokens; it is left out",
                        file_.path(), key, id, size);
      id = usual_id(name);
    }
    if (id < 0 || id >= size) return std::nullopt;
    return SurroundingToken{id, tokens_[static_cast<size_t>(id)]};
  }
  // The same of bos or eos, if the file says that it goes around a text.
  std::optional<SurroundingToken> around_text(const std::string& name, bool otherwise) const {
    const bool adds = file_.boolean_or("tokenizer.ggml.add_" + name + "_token", otherwise);
    return adds ? role(name) : std::nullopt;
  }

 private:
  bool is_t5() const { return file_.text("tokenizer.ggml.model") == kT5; }
  // What llama.cpp takes where the key is missing; -1: nothing.
  int64_t usual_id(const std::string& role) const {
    if (!is_t5()) return -1;
    return role == "padding" ? 0 : role == "eos" ? 1 : role == "unknown" ? 2 : -1;
  }

  const io::GgufFile& file_;
  const std::vector<std::string>& tokens_;
  std::vector<int64_t> types_;
};

json added_token(int64_t id, const std::string& text, bool special) {
  return {{"id", id},        {"content", text},      {"special", special}, {"lstrip", false},
          {"rstrip", false}, {"single_word", false}, {"normalized", false}};
}

// Control and user-defined tokens are found in a text before it is split into words.
json added_tokens(const GgufVocabulary& vocabulary, bool sentencepiece) {
  json added = json::array();
  for (size_t id = 0; id < vocabulary.tokens().size(); ++id) {
    const PieceType type = sentencepiece ? vocabulary.piece_type(id) : vocabulary.type(id);
    const bool special = type == PieceType::kControl || type == PieceType::kUnknown;
    if (special || type == PieceType::kUserDefined)
      added.push_back(added_token(static_cast<int64_t>(id), vocabulary.tokens()[id], special));
  }
  return added;
}

std::string tokenizer_json(const io::GgufFile& file, const GgufVocabulary& vocabulary) {
  const ByteLevelFamily family =
      byte_level_family(file.text_or("tokenizer.ggml.pre", "default"), file.path());
  json vocab = json::object();
  for (size_t id = 0; id < vocabulary.tokens().size(); ++id) {
    if (!vocab.emplace(vocabulary.tokens()[id], id).second) {
      fail<FormatError>("{}: {} must name each token once, '{}' stands there twice", file.path(),
                        kTokens, vocabulary.tokens()[id]);
    }
  }
  const std::vector<std::string>& merges = file.texts(kMerges);
  for (const std::string& merge : merges) check_utf8(merge, file.path() + ": " + kMerges);
  return io::json_text(byte_level_document(
      family, std::move(vocab), json(merges), added_tokens(vocabulary, false),
      vocabulary.around_text("bos", family.adds_bos), vocabulary.around_text("eos", false)));
}

std::vector<float> scores_of(const io::GgufFile& file, const GgufVocabulary& vocabulary) {
  std::vector<float> scores = file.numbers(kScores);
  vocabulary.require_length(kScores, scores.size());
  return scores;
}

// A document has no types, and takes the score of what is unknown from the least one: that of a
// normal piece, which all others get. Unused pieces behind the others are left out.
void add_pieces(const io::GgufFile& file, const GgufVocabulary& vocabulary,
                UnigramVocabulary& unigram) {
  const std::vector<float> scores = scores_of(file, vocabulary);
  size_t size = scores.size();
  while (size > 0 && vocabulary.piece_type(size - 1) == PieceType::kUnused) --size;
  float least = 0;
  for (size_t id = 0; id < size; ++id)
    if (vocabulary.type(id) == PieceType::kNormal) least = std::min(least, scores[id]);
  for (size_t id = 0; id < size; ++id) {
    const PieceType type = vocabulary.type(id);
    unigram.pieces.emplace_back(vocabulary.tokens()[id],
                                type == PieceType::kNormal ? scores[id] : least);
    unigram.byte_fallback |= type == PieceType::kByte;
  }
}

// What is missing is as llama.cpp takes it.
std::string unigram_json(const io::GgufFile& file, const GgufVocabulary& vocabulary) {
  constexpr const char* kCharsmap = "tokenizer.ggml.precompiled_charsmap";
  UnigramVocabulary unigram;
  add_pieces(file, vocabulary, unigram);
  unigram.unknown_id = vocabulary.unknown_id();
  unigram.adds_blank = file.boolean_or("tokenizer.ggml.add_space_prefix", false);
  unigram.merges_blanks = file.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false);
  if (file.has(kCharsmap)) unigram.charsmap = file.bytes(kCharsmap);
  return io::json_text(unigram_document(unigram, added_tokens(vocabulary, true),
                                        vocabulary.around_text("bos", false),
                                        vocabulary.around_text("eos", true)));
}

std::string sentencepiece_model(const io::GgufFile& file, const GgufVocabulary& vocabulary) {
  const std::vector<float> scores = scores_of(file, vocabulary);
  SentencePieceModel model;
  for (size_t id = 0; id < scores.size(); ++id)
    model.pieces.push_back({vocabulary.tokens()[id], scores[id], vocabulary.piece_type(id)});
  const auto id_of = [&](const char* role, int64_t otherwise) {
    const auto token = vocabulary.role(role);
    return token ? token->id : otherwise;
  };
  model.unk_id = vocabulary.unknown_id();
  model.bos_id = id_of("bos", -1);
  model.eos_id = id_of("eos", -1);
  model.pad_id = id_of("padding", -1);
  model.add_dummy_prefix = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  return serialize_model(model);
}

std::string config_json(const io::GgufFile& file, const GgufVocabulary& vocabulary,
                        const std::string& tokenizer_class) {
  json config = {{"tokenizer_class", tokenizer_class}, {"clean_up_tokenization_spaces", false}};
  const std::pair<const char*, const char*> roles[] = {{"bos_token", "bos"},
                                                       {"eos_token", "eos"},
                                                       {"unk_token", "unknown"},
                                                       {"pad_token", "padding"}};
  for (const auto& [name, role] : roles)
    if (const auto token = vocabulary.role(role)) config[name] = token->text;
  for (const char* flag : {"add_bos_token", "add_eos_token"})
    if (const std::string key = std::string("tokenizer.ggml.") + flag; file.has(key))
      config[flag] = file.boolean(key);
  if (tokenizer_class == "LlamaTokenizer") {
    config["legacy"] = true;  // as llama.cpp: a blank in front of what follows a special token, too
    json decoder = json::object();
    for (const json& token : added_tokens(vocabulary, true)) {
      json entry = token;
      entry.erase("id");
      decoder[std::to_string(token["id"].get<int64_t>())] = entry;
    }
    config["added_tokens_decoder"] = decoder;
  }
  return io::json_text(config, 2) + "\n";
}

// Ids at which generation stops: end of text, of turn, of message.
std::string generation_json(const GgufVocabulary& vocabulary) {
  std::set<int64_t> ends;
  for (const char* role : {"eos", "eot", "eom"})
    if (const auto token = vocabulary.role(role)) ends.insert(token->id);
  json config = {{"_from_model_config", true}, {"eos_token_id", ends}};
  if (const auto bos = vocabulary.role("bos")) config["bos_token_id"] = bos->id;
  if (const auto pad = vocabulary.role("padding")) config["pad_token_id"] = pad->id;
  return io::json_text(config, 2) + "\n";
}

// What follows "tokenizer." in keys that are read above, and in those that change no token: roles
// without a part in encoding, templates of other names, the source's own file.
constexpr std::string_view kKnownKeys[] = {"ggml.model",
                                           "ggml.pre",
                                           "ggml.tokens",
                                           "ggml.token_type",
                                           "ggml.token_type_count",
                                           "ggml.scores",
                                           "ggml.merges",
                                           "ggml.add_bos_token",
                                           "ggml.add_eos_token",
                                           "ggml.add_space_prefix",
                                           "chat_template",
                                           "chat_templates",
                                           "huggingface.json"};

constexpr std::string_view kKnownOfT5[] = {"ggml.remove_extra_whitespaces",
                                           "ggml.precompiled_charsmap"};

void warn_of_other_metadata(const io::GgufFile& file, bool is_t5) {
  constexpr std::string_view kPrefix = "tokenizer.";
  const auto is_known = [is_t5](std::string_view name) {
    return std::ranges::find(kKnownKeys, name) != std::end(kKnownKeys) ||
           (is_t5 && std::ranges::find(kKnownOfT5, name) != std::end(kKnownOfT5));
  };
  std::vector<std::string> others;
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with(kPrefix) || key.ends_with("_token_id")) continue;
    const std::string_view name = std::string_view(key).substr(kPrefix.size());
    const bool* flag = std::get_if<bool>(&value);
    if (name.starts_with("chat_template.") || (flag != nullptr && !*flag)) continue;
    if (!is_known(name)) others.push_back(key);
  }
  if (!others.empty())
    log::warning_once("{}: metadata that this version neither reads nor knows: {}", file.path(),
                      fmt::join(others, ", "));
}

}  // namespace

TokenizerFiles tokenizer_files_of(const io::GgufFile& file) {
  if (!file.has("tokenizer.ggml.model")) io::require_gguf_model(file);
  const std::string model = file.text("tokenizer.ggml.model");
  if (model != "gpt2" && model != "llama" && model != kT5) {
    fail<FormatError>(
        "{}: tokenizer.ggml.model must be gpt2 (byte-level BPE), llama (sentencepiece) or t5 "
        "(unigram), found '{}'",
        file.path(), model);
  }
  warn_of_other_metadata(file, model == kT5);
  const GgufVocabulary vocabulary(file);
  TokenizerFiles files;
  if (model == "llama")
    files["tokenizer.model"] = sentencepiece_model(file, vocabulary);
  else
    files["tokenizer.json"] =
        model == kT5 ? unigram_json(file, vocabulary) : tokenizer_json(file, vocabulary);
  files["tokenizer_config.json"] = config_json(
      file, vocabulary, model == "llama" ? "LlamaTokenizer" : "PreTrainedTokenizerFast");
  files["generation_config.json"] = generation_json(vocabulary);
  if (file.has("tokenizer.chat_template"))
    files[kTemplateFile] = file.text("tokenizer.chat_template");
  if (file.has("tokenizer.chat_template.tool_use"))
    files[kToolUseFile] = file.text("tokenizer.chat_template.tool_use");
  return files;
}

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const io::GgufFile& file) {
  TokenizerFiles files = tokenizer_files_of(file);
  const std::string name = file.path() + ": the tokenizer made of its metadata";
  if (files.contains("tokenizer.json")) {
    return make_json_tokenizer(std::move(files), file.path(), name);
  }
  return make_sentencepiece_tokenizer(std::move(files), file.path(), name);
}

}  // namespace qlora::data
