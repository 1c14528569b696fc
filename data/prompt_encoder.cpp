#include "data/prompt_encoder.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::data {
namespace {

// No control token is spelled longer.
constexpr size_t kLongestSpecial = 96;

std::vector<TokenId> joined(std::vector<TokenId> first, const std::vector<TokenId>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace

bool starts_with(const std::vector<TokenId>& ids, const std::vector<TokenId>& prefix) {
  return ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
}

PromptEncoder::PromptEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  const auto& bos = tokenizer.special_tokens().bos;
  if (!bos) return;
  const auto ids = tokenizer.encode("a", true);
  adds_bos_ = !ids.empty() && ids.front() == bos->id;
}

std::vector<TokenId> PromptEncoder::encode(std::string_view text) const {
  std::vector<TokenId> ids = tokenizer_.encode(text, false);
  if (lacks_bos(ids)) ids.insert(ids.begin(), tokenizer_.special_tokens().bos->id);
  return ids;
}

TokenId PromptEncoder::required_eos() const {
  const auto& eos = tokenizer_.special_tokens().eos;
  if (!eos) {
    throw ConfigError(
        "the tokenizer names no EOS token, which rows of this format must end with; add eos_token "
        "to its tokenizer_config.json");
  }
  return eos->id;
}

std::vector<TokenId> PromptEncoder::encode_with_eos(std::string_view text) const {
  std::vector<TokenId> ids = encode(text);
  if (ids.empty() || ids.back() != required_eos()) ids.push_back(required_eos());
  return ids;
}

bool PromptEncoder::lacks_bos(const std::vector<TokenId>& ids) const {
  if (!adds_bos_) return false;
  return ids.empty() || ids.front() != tokenizer_.special_tokens().bos->id;
}

EncodedText::EncodedText(std::string_view text, const PromptEncoder& encoder)
    : text_(text),
      encoder_(encoder),
      ids_(encoder.tokenizer().encode_behind(text, TokenCut(), &cuts_)) {
  if (!encoder.lacks_bos(ids_)) return;
  ids_.insert(ids_.begin(), encoder.tokenizer().special_tokens().bos->id);
  num_bos_ = 1;
}

std::optional<size_t> EncodedText::num_ids_of_beginning(size_t size) const {
  const auto behind = std::partition_point(cuts_.begin(), cuts_.end(),
                                           [&](const TokenCut& cut) { return cut.needed <= size; });
  const std::string_view beginning = text_.substr(0, size);
  std::vector<TokenId> rest;
  size_t known = 0;
  if (behind == cuts_.begin()) {
    rest = encoder_.encode(beginning);
  } else {
    const TokenCut& cut = *std::prev(behind);
    rest = encoder_.tokenizer().encode_behind(beginning, cut, nullptr);
    known = num_bos_ + cut.num_ids;
  }
  const bool same =
      ids_.size() - known >= rest.size() &&
      std::equal(rest.begin(), rest.end(), ids_.begin() + static_cast<ptrdiff_t>(known));
  if (!same) return std::nullopt;
  return known + rest.size();
}

std::optional<std::vector<TokenId>> PromptEncoder::encode_rest(
    const std::vector<TokenId>& prompt_ids, std::string_view prompt, std::string_view rest) const {
  std::string whole(prompt);
  whole.append(rest);
  const std::string wanted = tokenizer_.decode(encode(whole), false);
  const auto fits = [&](const std::vector<TokenId>& ids) {
    return tokenizer_.decode(joined(prompt_ids, ids), false) == wanted;
  };
  std::vector<TokenId> alone = tokenizer_.encode(rest, false);
  if (fits(alone)) return alone;
  // Sentencepiece puts a space in front of every text it encodes; behind a newline it does not.
  const std::vector<TokenId> newline = tokenizer_.encode("\n", false);
  std::string behind_newline(1, '\n');
  behind_newline.append(rest);
  std::vector<TokenId> behind = tokenizer_.encode(behind_newline, false);
  if (!starts_with(behind, newline)) return std::nullopt;
  behind.erase(behind.begin(), behind.begin() + static_cast<ptrdiff_t>(newline.size()));
  if (fits(behind)) return behind;
  return std::nullopt;
}

std::optional<SpecialToken> PromptEncoder::trailing_special(std::string_view text) const {
  size_t begin = text.size() > kLongestSpecial ? text.size() - kLongestSpecial : 0;
  while (begin < text.size() && is_utf8_continuation(text[begin])) ++begin;
  const auto ids = tokenizer_.encode(text.substr(begin), false);
  if (ids.empty()) return std::nullopt;
  const TokenId last = ids.back();
  if (!tokenizer_.is_special(last) && !ends_generation(last)) return std::nullopt;
  std::string spelled = tokenizer_.decode(std::vector<TokenId>{last}, false);
  if (spelled.empty() || !text.ends_with(spelled)) spelled = tokenizer_.id_to_token(last);
  if (spelled.empty() || !text.ends_with(spelled)) return std::nullopt;
  return SpecialToken{last, spelled};
}

bool PromptEncoder::ends_generation(TokenId id) const {
  const SpecialTokens& special = tokenizer_.special_tokens();
  if (special.eos && special.eos->id == id) return true;
  return std::find(special.end_of_generation.begin(), special.end_of_generation.end(), id) !=
         special.end_of_generation.end();
}

int64_t PromptEncoder::leading_bos(std::span<const TokenId> tokens) const {
  const auto& bos = tokenizer_.special_tokens().bos;
  if (!bos) return 0;
  const auto other =
      std::find_if(tokens.begin(), tokens.end(), [&](TokenId id) { return id != bos->id; });
  return other - tokens.begin();
}

}  // namespace qlora::data
