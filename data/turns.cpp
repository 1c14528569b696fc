#include "data/turns.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace qlora::data {
namespace {

using Ids = std::vector<TokenId>;

struct TokenSpan {
  size_t begin, end;
};

std::string_view without_trailing_space(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

bool stands_in(const Turn& turn, std::string_view text) {
  return text.substr(0, turn.end) == std::string_view(turn.whole).substr(0, turn.end);
}

// Index behind the turn's last trained token in `ids`, the tokens of a text that begins with the
// turn.
std::optional<size_t> end_index(const Turn& turn, std::string_view text, const Ids& ids,
                                size_t begin, const PromptEncoder& encoder) {
  if (turn.end == text.size()) return ids.size();
  const std::string_view trained = text.substr(0, turn.end);
  if (turn.end_of_turn >= 0) {
    // Usually the end-of-turn token occurs once in the answer and its first occurrence is the end.
    const std::string spelled = encoder.tokenizer().id_to_token(turn.end_of_turn);
    if (trained.find(spelled, turn.prompt.size()) + spelled.size() == turn.end) {
      const auto found =
          std::find(ids.begin() + static_cast<ptrdiff_t>(begin), ids.end(), turn.end_of_turn);
      if (found != ids.end()) return static_cast<size_t>(found - ids.begin()) + 1;
    }
  }
  const Ids upto = encoder.encode(trained);
  if (!starts_with(ids, upto)) return std::nullopt;
  return upto.size();
}

std::optional<TokenSpan> locate(const Turn& turn, std::string_view text, const Ids& ids,
                                const Ids& prompt_ids, const PromptEncoder& encoder) {
  if (!stands_in(turn, text) || !starts_with(ids, prompt_ids)) return std::nullopt;
  const auto end = end_index(turn, text, ids, prompt_ids.size(), encoder);
  if (!end || *end <= prompt_ids.size()) return std::nullopt;
  return TokenSpan{prompt_ids.size(), *end};
}

Example masked(Ids tokens, const std::vector<TokenSpan>& spans) {
  Example example;
  example.supervised.assign(tokens.size(), 0);
  for (const TokenSpan& span : spans) {
    std::fill(example.supervised.begin() + static_cast<ptrdiff_t>(span.begin),
              example.supervised.begin() + static_cast<ptrdiff_t>(span.end), uint8_t{1});
  }
  example.tokens = std::move(tokens);
  if (!example.supervised.empty()) example.supervised[0] = 0;
  return example;
}

// The prompt's own tokens, then the answer's: for a boundary that encode(whole) would merge away.
// What the template writes behind the end of turn is left out; nothing reads it.
Example cut_at_prompt(const Turn& turn, Ids prompt_ids, const PromptEncoder& encoder) {
  const std::string_view trained = std::string_view(turn.whole).substr(0, turn.end);
  const size_t begin = prompt_ids.size();
  const auto rest =
      encoder.encode_rest(prompt_ids, turn.prompt, trained.substr(turn.prompt.size()));
  if (rest) {
    prompt_ids.insert(prompt_ids.end(), rest->begin(), rest->end());
    const size_t end = prompt_ids.size();
    return masked(std::move(prompt_ids), {{begin, end}});
  }
  // A tokenizer that cannot separate the two: the token that holds the answer's beginning is
  // trained.
  Ids ids = encoder.encode(trained);
  const auto differ = std::mismatch(ids.begin(), ids.end(), prompt_ids.begin(), prompt_ids.end());
  const auto straddling = static_cast<size_t>(differ.first - ids.begin());
  const size_t end = ids.size();
  return masked(std::move(ids), {{std::min(straddling, end), end}});
}

}  // namespace

std::string Turn::answer(const Tokenizer& tokenizer) const {
  std::string text = whole.substr(prompt.size(), end - prompt.size());
  if (end_of_turn < 0) return text;
  const std::string spelled = tokenizer.id_to_token(end_of_turn);
  if (text.ends_with(spelled)) text.resize(text.size() - spelled.size());
  return text;
}

Turn make_turn(std::string prompt, std::string whole, const PromptEncoder& encoder) {
  check(whole.starts_with(prompt), "make_turn: the whole text must begin with the prompt");
  Turn turn{std::move(prompt), std::move(whole)};
  turn.end = turn.whole.size();
  // Walk back over control tokens and white space. The first token there that ends a generation is
  // the end of turn (Phi-3 writes "<|end|>\n<|endoftext|>"); if the tokenizer names none of them,
  // it is the last one.
  std::string_view rest = std::string_view(turn.whole).substr(turn.prompt.size());
  for (;;) {
    rest = without_trailing_space(rest);
    const auto special = encoder.trailing_special(rest);
    if (!special) break;
    const bool named = encoder.ends_generation(special->id);
    if (turn.end_of_turn < 0 || named) {
      turn.end = turn.prompt.size() + rest.size();
      turn.end_of_turn = special->id;
    }
    rest.remove_suffix(special->text.size());
  }
  return turn;
}

std::vector<Example> tokenize_turns(const std::vector<Turn>& turns, const PromptEncoder& encoder) {
  std::vector<Example> examples;
  std::vector<Ids> prompts;
  for (const Turn& turn : turns) prompts.push_back(encoder.encode(turn.prompt));
  std::vector<bool> done(turns.size(), false);
  for (size_t last = turns.size(); last-- > 0;) {
    if (done[last]) continue;
    const std::string& text = turns[last].whole;
    Ids ids = encoder.encode(text);
    const auto own = locate(turns[last], text, ids, prompts[last], encoder);
    done[last] = true;
    if (!own) {
      examples.push_back(cut_at_prompt(turns[last], prompts[last], encoder));
      continue;
    }
    std::vector<TokenSpan> spans = {*own};
    for (size_t i = 0; i < last; ++i) {
      if (done[i]) continue;
      if (const auto span = locate(turns[i], text, ids, prompts[i], encoder)) {
        spans.push_back(*span);
        done[i] = true;
      }
    }
    examples.push_back(masked(std::move(ids), spans));
  }
  std::reverse(examples.begin(), examples.end());  // the order of the conversation
  return examples;
}

}  // namespace qlora::data
