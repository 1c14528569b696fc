// A tokenizer small enough to check by hand: one id a byte, a handful of control tokens, and, to
// provoke the trouble that real vocabularies make at a prompt's end, pairs of bytes that merge into
// one id.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/tokenizer.h"

namespace qlora::test {

class ByteTokenizer : public data::Tokenizer {
 public:
  static constexpr data::TokenId kBos = 256, kEos = 257, kStart = 258, kEnd = 259,
                                 kFirstMerge = 260;

  bool adds_bos = false;
  std::vector<std::string> merges;  // two bytes each
  std::string template_text, tool_use_text;
  data::SpecialTokens special{.bos = data::SpecialToken{kBos, "<s>"},
                              .eos = data::SpecialToken{kEos, "</s>"},
                              .unk = {},
                              .pad = {},
                              .end_of_generation = {kEos, kEnd}};

  std::vector<data::TokenId> encode(std::string_view text, bool add_special_tokens) const override {
    std::vector<data::TokenId> ids;
    if (add_special_tokens && adds_bos) ids.push_back(kBos);
    while (!text.empty()) {
      const auto [id, size] = longest_match(text);
      ids.push_back(id);
      text.remove_prefix(size);
    }
    return ids;
  }

  std::string decode(std::span<const data::TokenId> ids, bool skip_special_tokens) const override {
    std::string text;
    for (const data::TokenId id : ids) {
      if (!skip_special_tokens || !is_special(id)) text += id_to_token(id);
    }
    return text;
  }

  std::string id_to_token(data::TokenId id) const override {
    if (id >= 0 && id < 256) return std::string(1, static_cast<char>(id));
    if (is_special(id)) return specials()[static_cast<size_t>(id - kBos)];
    return merges.at(static_cast<size_t>(id - kFirstMerge));
  }
  std::optional<data::TokenId> token_to_id(std::string_view token) const override {
    const auto ids = encode(token, false);
    return ids.size() == 1 ? std::optional(ids[0]) : std::nullopt;
  }
  bool is_special(data::TokenId id) const override { return id >= kBos && id <= kEnd; }
  int64_t vocab_size() const override { return kFirstMerge + static_cast<int64_t>(merges.size()); }
  const std::string& chat_template() const override { return template_text; }
  const std::string& tool_use_template() const override { return tool_use_text; }
  const data::SpecialTokens& special_tokens() const override { return special; }
  void write_files(const std::string&) const override { throw Error("not needed"); }
  const std::map<std::string, std::string>& files() const override {
    static const std::map<std::string, std::string> none;
    return none;
  }
  std::string fingerprint() const override { return "bytes"; }

 private:
  static const std::vector<std::string>& specials() {
    static const std::vector<std::string> spelled = {"<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    return spelled;
  }
  std::pair<data::TokenId, size_t> longest_match(std::string_view text) const {
    for (size_t i = 0; i < specials().size(); ++i) {
      if (text.starts_with(specials()[i]))
        return {kBos + static_cast<int>(i), specials()[i].size()};
    }
    for (size_t i = 0; i < merges.size(); ++i) {
      if (text.starts_with(merges[i])) return {kFirstMerge + static_cast<int>(i), merges[i].size()};
    }
    return {static_cast<unsigned char>(text[0]), 1};
  }
};

// The texts of the supervised runs of an example, joined with '|'.
inline std::string supervised_text(const data::Tokenizer& tokenizer,
                                   const std::vector<data::TokenId>& tokens,
                                   const std::vector<uint8_t>& supervised) {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (supervised[i] == 0) continue;
    if (!text.empty() && supervised[i - 1] == 0) text += '|';
    text += tokenizer.decode(std::span(&tokens[i], 1), false);
  }
  return text;
}

}  // namespace qlora::test
