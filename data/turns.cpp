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

// How many bytes two turns' texts have in common.
size_t common_size(const Turn& a, const Turn& b) {
  if (a.base != b.base) return common_prefix(a.whole(), b.whole());
  const size_t shared = std::min(a.text.shared, b.text.shared);
  const auto& [longer, shorter] = a.text.shared > shared ? std::pair(&a, &b) : std::pair(&b, &a);
  const std::string& rest = shorter->text.rest;
  const auto begin = static_cast<ptrdiff_t>(shared);
  const auto end = static_cast<ptrdiff_t>(std::min(longer->text.shared, shared + rest.size()));
  const auto differ = std::mismatch(a.base->begin() + begin, a.base->begin() + end, rest.begin());
  const auto same = static_cast<size_t>(differ.first - a.base->begin());
  if (same < static_cast<size_t>(end) || same < longer->text.shared) return same;
  return same + common_prefix(longer->text.rest, std::string_view(rest).substr(same - shared));
}

// Index behind the turn's last trained token in the ids of a text that begins with the turn.
std::optional<size_t> end_index(const Turn& turn, const EncodedText& coded, size_t begin,
                                const PromptEncoder& encoder) {
  const std::string_view text = coded.text();
  const std::vector<TokenId>& ids = coded.ids();
  if (turn.end == text.size()) return ids.size();
  const std::string_view trained = text.substr(0, turn.end);
  if (turn.end_of_turn >= 0) {
    // Usually the end-of-turn token occurs once in the answer and its first occurrence is the end.
    const std::string spelled = encoder.tokenizer().id_to_token(turn.end_of_turn);
    if (trained.find(spelled, turn.prompt_size) + spelled.size() == turn.end) {
      const auto found =
          std::find(ids.begin() + static_cast<ptrdiff_t>(begin), ids.end(), turn.end_of_turn);
      if (found != ids.end()) return static_cast<size_t>(found - ids.begin()) + 1;
    }
  }
  return coded.num_ids_of_beginning(turn.end);
}

// Where the turn is trained in `coded`, which begins as the turn's text does for `common` bytes.
std::optional<TokenSpan> locate(const Turn& turn, size_t common, const EncodedText& coded,
                                const PromptEncoder& encoder) {
  if (common < turn.end) return std::nullopt;
  const auto begin = coded.num_ids_of_beginning(turn.prompt_size);
  if (!begin) return std::nullopt;
  const auto end = end_index(turn, coded, *begin, encoder);
  if (!end || *end <= *begin) return std::nullopt;
  return TokenSpan{*begin, *end};
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
Example cut_at_prompt(const Turn& turn, std::string_view whole, const PromptEncoder& encoder) {
  const std::string_view trained = whole.substr(0, turn.end);
  const std::string_view prompt = whole.substr(0, turn.prompt_size);
  Ids prompt_ids = encoder.encode(prompt);
  const size_t begin = prompt_ids.size();
  const auto rest = encoder.encode_rest(prompt_ids, prompt, trained.substr(prompt.size()));
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
  std::string answer = text.behind(prompt_size, *base).substr(0, end - prompt_size);
  if (end_of_turn < 0) return answer;
  const std::string spelled = tokenizer.id_to_token(end_of_turn);
  if (answer.ends_with(spelled)) answer.resize(answer.size() - spelled.size());
  return answer;
}

Turn make_turn(const std::string& prompt, std::string whole, const PromptEncoder& encoder) {
  check(whole.starts_with(prompt), "make_turn: the whole text must begin with the prompt");
  const size_t size = whole.size();
  return make_turn(std::make_shared<const std::string>(std::move(whole)), {size, ""}, prompt.size(),
                   encoder);
}

Turn make_turn(std::shared_ptr<const std::string> base, SharedText whole, size_t prompt_size,
               const PromptEncoder& encoder) {
  Turn turn{std::move(base), std::move(whole), prompt_size};
  turn.end = turn.text.size();
  // Walk back over control tokens and white space. The first token there that ends a generation is
  // the end of turn (Phi-3 writes "<|end|>\n<|endoftext|>"); if the tokenizer names none of them,
  // it is the last one.
  const std::string behind_prompt = turn.text.behind(prompt_size, *turn.base);
  std::string_view rest = behind_prompt;
  for (;;) {
    rest = without_trailing_space(rest);
    const auto special = encoder.trailing_special(rest);
    if (!special) break;
    const bool named = encoder.ends_generation(special->id);
    if (turn.end_of_turn < 0 || named) {
      turn.end = prompt_size + rest.size();
      turn.end_of_turn = special->id;
    }
    rest.remove_suffix(special->text.size());
  }
  return turn;
}

std::vector<Example> tokenize_turns(const std::vector<Turn>& turns, const PromptEncoder& encoder) {
  std::vector<Example> examples;
  std::vector<bool> done(turns.size(), false);
  for (size_t last = turns.size(); last-- > 0;) {
    if (done[last]) continue;
    const std::string text = turns[last].whole();
    const EncodedText coded(text, encoder);
    const auto own = locate(turns[last], text.size(), coded, encoder);
    done[last] = true;
    if (!own) {
      examples.push_back(cut_at_prompt(turns[last], text, encoder));
      continue;
    }
    std::vector<TokenSpan> spans = {*own};
    for (size_t i = 0; i < last; ++i) {
      if (done[i]) continue;
      const size_t common = common_size(turns[i], turns[last]);
      if (const auto span = locate(turns[i], common, coded, encoder)) {
        spans.push_back(*span);
        done[i] = true;
      }
    }
    examples.push_back(masked(coded.ids(), spans));
  }
  std::reverse(examples.begin(), examples.end());  // the order of the conversation
  return examples;
}

}  // namespace qlora::data
