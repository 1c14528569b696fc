// Text -> ids for training and generation alike, with the two questions that both must answer the
// same way: is a BOS token put in front, and where does a prompt end among the tokens.
#pragma once

#include <optional>
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
  int64_t leading_bos(const std::vector<TokenId>& tokens) const;

 private:
  const Tokenizer& tokenizer_;
  bool adds_bos_ = false;
};

bool starts_with(const std::vector<TokenId>& ids, const std::vector<TokenId>& prefix);

}  // namespace qlora::data
