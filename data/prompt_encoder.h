// Text -> ids for training and generation alike, with the two questions that both must answer the
// same way: is a BOS token put in front, and where does a prompt end among the tokens.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace qlora::data {

class PromptEncoder {
 public:
  // The tokenizer must outlive the encoder and allow encode() from several threads.
  explicit PromptEncoder(const Tokenizer& tokenizer);

  const Tokenizer& tokenizer() const { return tokenizer_; }

  // Ids with one BOS in front if the tokenizer's own post-processing writes one and the text does
  // not begin with it already (most chat templates write it themselves). EOS is never added.
  std::vector<TokenId> encode(std::string_view text) const;

  // The same with the EOS token at the end, as encoders are given texts. ConfigError if the
  // tokenizer names none.
  std::vector<TokenId> encode_with_eos(std::string_view text) const;
  TokenId required_eos() const;

  // Ids that follow `prompt_ids` so that the whole decodes to prompt + rest, without a merge across
  // the boundary: what a model that was given prompt_ids has to produce. nullopt if the tokenizer
  // cannot write it so.
  std::optional<std::vector<TokenId>> encode_rest(const std::vector<TokenId>& prompt_ids,
                                                  std::string_view prompt,
                                                  std::string_view rest) const;

  // The control token at the end of `text`, if it ends with one, and how many bytes it takes.
  std::optional<SpecialToken> trailing_special(std::string_view text) const;

  bool ends_generation(TokenId id) const;
  // Number of BOS tokens at the start: the audit allows at most one.
  int64_t leading_bos(std::span<const TokenId> tokens) const;

 private:
  friend class EncodedText;
  bool lacks_bos(const std::vector<TokenId>& ids) const;

  const Tokenizer& tokenizer_;
  bool adds_bos_ = false;
};

// The ids of a text and of its beginnings. A beginning costs what lies behind its last control
// token but one.
class EncodedText {
 public:
  // Both must outlive this.
  EncodedText(std::string_view text, const PromptEncoder& encoder);

  std::string_view text() const { return text_; }
  const std::vector<TokenId>& ids() const { return ids_; }
  // How many ids encode() gives for the text's first `size` bytes; nothing if these are not the
  // first of ids().
  std::optional<size_t> num_ids_of_beginning(size_t size) const;

 private:
  std::string_view text_;
  const PromptEncoder& encoder_;
  std::vector<TokenCut> cuts_;
  std::vector<TokenId> ids_;
  size_t num_bos_ = 0;  // put in front by the encoder
};

bool starts_with(const std::vector<TokenId>& ids, const std::vector<TokenId>& prefix);

}  // namespace qlora::data
