// Vocabularies small enough to work ids out by hand, as the metadata of GGUF files.
#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

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
constexpr int64_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;
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

// The bytes of a precompiled_charsmap with these replacements (data/tokenizers/charsmap.h). The
// units below a prefix are a block of 256 of their own.
inline std::string charsmap_of(const std::map<std::string, std::string>& replacements) {
  std::map<std::string, uint32_t> blocks = {{"", 256}};
  for (const auto& [from, to] : replacements)
    for (size_t size = 1; size <= from.size(); ++size)
      blocks.try_emplace(from.substr(0, size), static_cast<uint32_t>(256 * (blocks.size() + 1)));
  const auto unit_of = [&blocks](const std::string& prefix) {
    if (prefix.empty()) return uint32_t{0};
    return blocks.at(prefix.substr(0, prefix.size() - 1)) ^
           static_cast<unsigned char>(prefix.back());
  };
  std::vector<uint32_t> units(256 * (blocks.size() + 1), 255);  // the label of no character
  for (const auto& [prefix, block] : blocks)
    units[unit_of(prefix)] = (unit_of(prefix) ^ block) << 10 |
                             (prefix.empty() ? 0 : static_cast<unsigned char>(prefix.back()));
  std::string texts;
  for (const auto& [from, to] : replacements) {
    units[unit_of(from)] |= 1u << 8;
    units[blocks.at(from)] = 1u << 31 | static_cast<uint32_t>(texts.size());
    texts += to + '\0';
  }
  const auto size = static_cast<uint32_t>(units.size() * sizeof(uint32_t));
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes.append(reinterpret_cast<const char*>(units.data()), size);
  return bytes + texts;
}

// <pad>, </s>, <unk>, then pieces with the logarithms of their frequencies: "▁" (3), a, b, "▁a"
// (6), ab, "▁ab" (8), fi. A tab is a blank, the ligature of f and i two letters.
inline GgufMetadata unigram_metadata() {
  const std::vector<std::pair<std::string, float>> pieces = {
      {"▁", -2.0f},  {"a", -3.0f},   {"b", -3.5f}, {"▁a", -2.5f},
      {"ab", -2.8f}, {"▁ab", -4.0f}, {"fi", -3.0f}};
  std::vector<std::string> tokens = {"<pad>", "</s>", "<unk>"};
  std::vector<int64_t> types = {token_type::kControl, token_type::kControl, token_type::kUnknown};
  std::vector<float> scores = {0, 0, 0};
  for (const auto& [piece, score] : pieces) {
    tokens.push_back(piece);
    types.push_back(token_type::kNormal);
    scores.push_back(score);
  }
  const std::string charsmap = charsmap_of({{"\t", " "}, {"ﬁ", "fi"}});
  const auto bytes = std::as_bytes(std::span(charsmap));
  return {
      {"general.architecture", std::string("t5")},
      {"tokenizer.ggml.model", std::string("t5")},
      {"tokenizer.ggml.pre", std::string("default")},
      {"tokenizer.ggml.tokens", tokens},
      {"tokenizer.ggml.token_type", types},
      {"tokenizer.ggml.scores", scores},
      {"tokenizer.ggml.add_space_prefix", true},
      {"tokenizer.ggml.remove_extra_whitespaces", true},
      {"tokenizer.ggml.precompiled_charsmap", std::vector<std::byte>(bytes.begin(), bytes.end())},
      {"tokenizer.ggml.padding_token_id", uint64_t{0}},
      {"tokenizer.ggml.eos_token_id", uint64_t{1}},
      {"tokenizer.ggml.unknown_token_id", uint64_t{2}}};
}

}  // namespace qlora::test
