// Pieces of tokenizer.json documents for byte-level BPE vocabularies that come without one: from
// vocab.json + merges.txt, or from a GGUF.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace qlora::data {

// How one family of byte-level vocabularies reads text.
struct ByteLevelFamily {
  nlohmann::json pre_tokenizer;
  nlohmann::json normalizer = nullptr;  // null: none
  bool ignore_merges = false;           // a whole piece that is a token is taken as it is
  bool adds_bos = false;                // unless the file says otherwise
};

// By GGUF's tokenizer.ggml.pre ("gpt-2", "llama-bpe", "qwen2", "smollm", ...). FormatError that
// names `place` and lists the known names for any other.
ByteLevelFamily byte_level_family(const std::string& pre, const std::string& place);

// The name of tokenizer.ggml.pre that reads text as this tokenizer.json does, as far as its
// normalizer and pre-tokenizer say; nothing if none does.
std::optional<std::string> byte_level_pre(const nlohmann::json& document);

struct SurroundingToken {
  int64_t id;
  std::string text;
};
// The post-processor that puts these around a text.
nlohmann::json post_processor(const std::optional<SurroundingToken>& bos,
                              const std::optional<SurroundingToken>& eos);

// The document: `vocab` is {token: id}, `merges` a list, `added_tokens` a list with ids.
// `bos`, `eos`: what goes around a text.
nlohmann::json byte_level_document(const ByteLevelFamily& family, nlohmann::json vocab,
                                   nlohmann::json merges, nlohmann::json added_tokens,
                                   const std::optional<SurroundingToken>& bos,
                                   const std::optional<SurroundingToken>& eos);

}  // namespace qlora::data
