// Vocabularies small enough to work ids out by hand, as the metadata of GGUF files.
#pragma once

#include <map>
#include <string>

#include "data/tokenizers/byte_alphabet.h"
#include "io/gguf.h"
#include "tests/support/temp_dir.h"

namespace qlora::test {

using GgufMetadata = std::map<std::string, io::GgufValue>;

// A GGUF file of metadata alone.
inline io::GgufFile gguf_of_metadata(const TempDir& dir, const GgufMetadata& metadata) {
  const std::string path = dir / "vocabulary.gguf";
  io::GgufWriter(path, {metadata.begin(), metadata.end()}, {}).finish();
  return io::GgufFile(path);
}

namespace token_type {
constexpr int64_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;
}

// 256 byte letters, then "ab" (256), "abc" (257), " a" (258), <|end|> (259).
inline GgufMetadata byte_level_metadata() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.emplace_back();
    data::append_byte_letters(std::string(1, static_cast<char>(byte)), tokens.back());
  }
  for (const char* token : {"ab", "abc", "Ġa", "<|end|>"}) tokens.emplace_back(token);
  std::vector<int64_t> types(260, token_type::kNormal);
  types[259] = token_type::kControl;
  return {{"general.architecture", std::string("llama")},
          {"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", std::string("gpt-2")},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", std::vector<std::string>{"a b", "ab c", "Ġ a"}},
          {"tokenizer.ggml.eos_token_id", uint64_t{259}}};
}

// <unk>, <s>, </s>, the 256 bytes, then pieces whose scores are their rank.
inline GgufMetadata sentencepiece_metadata() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {token_type::kUnknown, token_type::kControl, token_type::kControl};
  std::vector<float> scores = {0, 0, 0};
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    types.push_back(token_type::kByte);
    scores.push_back(0);
  }
  float score = 0;
  for (const char* piece : {"▁a", "ab", "▁ab", "▁", "a", "b"}) {  // 259 ...
    tokens.emplace_back(piece);
    types.push_back(token_type::kNormal);
    scores.push_back(score -= 1);
  }
  return {{"general.architecture", std::string("llama")},
          {"tokenizer.ggml.model", std::string("llama")},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.scores", scores},
          {"tokenizer.ggml.bos_token_id", uint64_t{1}},
          {"tokenizer.ggml.eos_token_id", uint64_t{2}}};
}

}  // namespace qlora::test
