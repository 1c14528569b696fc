#include "data/tokenizers/token_difference.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/error.h"

namespace qlora::data {
namespace {

std::optional<std::string> token_of(const Tokenizer& tokenizer, int64_t id) {
  if (id >= tokenizer.vocab_size()) return std::nullopt;
  try {
    return tokenizer.id_to_token(static_cast<TokenId>(id));
  } catch (const FormatError&) {  // a gap
    return std::nullopt;
  }
}

std::string quoted(const std::optional<std::string>& token) {
  return token ? "'" + *token + "'" : "no token";
}

// Which no row has: many programs add one as they load a tokenizer.
bool is_padding(const Tokenizer& tokenizer, int64_t id) {
  const auto& pad = tokenizer.special_tokens().pad;
  return pad && pad->id == id;
}

std::string difference_of_tokens(const Tokenizer& adapters, const Tokenizer& models) {
  const int64_t count = std::max(adapters.vocab_size(), models.vocab_size());
  for (int64_t id = 0; id < count; ++id) {
    const auto theirs = token_of(adapters, id), ours = token_of(models, id);
    if (!ours && is_padding(adapters, id)) continue;
    if (theirs != ours)
      return fmt::format("token {} is {}, in the model's {}", id, quoted(theirs), quoted(ours));
    if (!theirs) continue;
    const bool is_special = adapters.is_special(static_cast<TokenId>(id));
    if (is_special != models.is_special(static_cast<TokenId>(id)))
      return fmt::format("token {}, {}, is {}special, in the model's it is {}", id, quoted(theirs),
                         is_special ? "" : "not ", is_special ? "not" : "so");
  }
  return "";
}

std::string difference_of_role(const char* role, const std::optional<SpecialToken>& theirs,
                               const std::optional<SpecialToken>& ours) {
  const auto text = [](const auto& token) {
    return quoted(token ? std::optional(token->text) : std::nullopt);
  };
  const bool is_same =
      theirs.has_value() == ours.has_value() && (!theirs || theirs->id == ours->id);
  return is_same ? "" : fmt::format("{} is {}, in the model's {}", role, text(theirs), text(ours));
}

}  // namespace

std::string token_difference(const Tokenizer& adapters, const Tokenizer& models,
                             bool compares_eos) {
  std::string difference = difference_of_tokens(adapters, models);
  if (!difference.empty()) return difference;
  const SpecialTokens &theirs = adapters.special_tokens(), &ours = models.special_tokens();
  difference = difference_of_role("bos_token", theirs.bos, ours.bos);
  if (difference.empty() && compares_eos)
    difference = difference_of_role("eos_token", theirs.eos, ours.eos);
  if (!difference.empty()) return difference;
  for (const char* text : {"Two words, 12.5 \u00e9!", " x\n\n  y\t ", "don't"})
    for (const bool with_special : {false, true})
      if (adapters.encode(text, with_special) != models.encode(text, with_special))
        return "it makes other tokens of some texts than the model's";
  return "";
}

}  // namespace qlora::data
